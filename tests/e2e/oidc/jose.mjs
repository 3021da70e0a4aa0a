// Another reading of JOSE: print, as a JSON array, the names of the vectors that the package
// `jose` takes. It is told what a careful relying party would tell it.
import { readFileSync } from 'node:fs';
import { createLocalJWKSet, jwtVerify } from 'jose';

const vectors = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const signers = Object.fromEntries(vectors.signers.map(one => [one.name, one.signer]));
const taken = [];
for (const { name, signer, token, until } of [...vectors.accepted, ...vectors.refused]) {
  const { issuer, audience, sub, jwks } = signers[signer];
  const now = until === undefined ? vectors.statement.issued_at + 31 : until - 1;
  try {
    const { payload } = await jwtVerify(token, createLocalJWKSet({ keys: jwks }), {
      issuer, audience, subject: sub, typ: undefined,
      algorithms: ['RS256', 'ES256', 'EdDSA'],
      requiredClaims: ['exp', 'iat', 'auth_time', 'nonce'],
      currentDate: new Date(now * 1000), clockTolerance: 60,
    });
    if (payload.nonce === vectors.statement.nonce) taken.push(name);
  } catch { /* refused */ }
}
console.log(JSON.stringify(taken));
