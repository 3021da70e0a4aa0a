"use strict";
// Asks the browser for the passkey and posts what it says to the tool that serves this page.
// Nothing here is trusted: the tool verifies the answer, and each vault does so again.

const main = document.querySelector("main");
const options = JSON.parse(main.dataset.options);
const [yes, no, status] = ["yes", "no", "status"].map((id) => document.getElementById(id));

const bytes = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const credential = (id) => ({ type: "public-key", id: bytes(id) });

async function enrol() {
  const made = await navigator.credentials.create({
    publicKey: {
      challenge: bytes(options.challenge),
      rp: { id: options.rpId, name: "placet approvals" },
      user: { id: bytes(options.user), name: options.name, displayName: options.name },
      pubKeyCredParams: options.algorithms.map((alg) => ({ type: "public-key", alg })),
      excludeCredentials: options.known.map(credential),
      authenticatorSelection: { residentKey: "preferred", userVerification: "required" },
      attestation: "none",
    },
  });
  return {
    client_data: text(made.response.clientDataJSON),
    authenticator_data: text(made.response.getAuthenticatorData()),
  };
}

async function approve() {
  const got = await navigator.credentials.get({
    publicKey: {
      challenge: bytes(options.challenge),
      rpId: options.rpId,
      userVerification: "required",
      allowCredentials: [credential(options.credential)],
    },
  });
  return {
    client_data: text(got.response.clientDataJSON),
    authenticator_data: text(got.response.authenticatorData),
    signature: text(got.response.signature),
  };
}

function say(message, kind) {
  status.textContent = message;
  status.className = `status ${kind}`;
}

function end(message, kind) {
  say(message, kind);
  yes.parentElement.remove();
}

async function post(answer) {
  const said = await fetch("answer", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(answer),
  });
  return said.ok ? null : (await said.json()).detail;
}

const why = {
  InvalidStateError: "This authenticator has such a passkey already. Take another one.",
  NotAllowedError: "The browser says no, or it took too long. Nothing happened; you can try again.",
  SecurityError: "The browser does not allow this passkey on this address.",
};

yes.addEventListener("click", async () => {
  yes.disabled = no.disabled = true;
  say("Your browser asks you now.", "");
  let answer;
  try {
    answer = await (main.dataset.step === "enrol" ? enrol() : approve());
  } catch (e) {
    yes.disabled = no.disabled = false;
    say(why[e.name] ?? `The browser failed: ${e.name}`, "bad");
    return;
  }
  try {
    const refused = await post(answer);
    if (refused) end(`Refused: ${refused}`, "bad");
    else if (main.dataset.step === "enrol") end("Done. Go back to your terminal.", "good");
    else end("Signed. Your terminal says what the vaults make of it.", "good");
  } catch {
    end("The placet that served this page is gone. Start again in your terminal.", "bad");
  }
});

no.addEventListener("click", async () => {
  try {
    await post({ declined: true });
  } catch {
    // It is gone already, and so is the question.
  }
  end("Declined. Nothing was signed.", "odd");
});

if (!window.PublicKeyCredential) {
  end("This browser has no passkeys. Open the address in another one.", "bad");
}
