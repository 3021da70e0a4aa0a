// A real OpenID provider on a random loopback port, for tests/e2e/test_oidc_browser.py. It says
// "ready ISSUER" once it listens, and ends when its standard input does. Any name and password
// sign in; keys are made anew each time.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const key = (kid, alg, kind, options) => ({
  ...generateKeyPairSync(kind, options).privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig',
});
const keys = [
  key('es-1', 'ES256', 'ec', { namedCurve: 'P-256' }),
  key('rs-1', 'RS256', 'rsa', { modulusLength: 2048 }),
  key('ed-1', 'EdDSA', 'ed25519'),
];
const client = (client_id, id_token_signed_response_alg) => ({
  client_id, id_token_signed_response_alg,
  application_type: 'native', token_endpoint_auth_method: 'none',
  grant_types: ['authorization_code'], response_types: ['code'],
  redirect_uris: ['http://127.0.0.1/signed-in'],
});

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [
      client('approvals-es256', 'ES256'),
      client('approvals-rs256', 'RS256'),
      client('approvals-eddsa', 'EdDSA'),
      client('notes-web', 'ES256'),
    ],
    cookies: { keys: ['not a secret: a test'] },
    enabledJWA: { idTokenSigningAlgValues: ['ES256', 'RS256', 'EdDSA'] },
    features: { devInteractions: { enabled: true } },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  });
  server.on('request', provider.callback());
  console.log(`ready ${issuer}`);
});
process.stdin.resume().on('end', () => process.exit(0));
