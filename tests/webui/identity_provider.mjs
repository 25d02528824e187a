// A real OpenID provider on loopback: node identity_provider.mjs PORT REDIRECT_URI... Its people sign in with NAME and NAME-password.
// POST /test/roles?user=NAME&roles=a,b changes what somebody is; GET /test/token?user=NAME&aud=A&seconds=S is an access token as the API takes it,
// which lasts S seconds. Nobody has verified uma's address; dave writes his in capital letters. With THIN=1 its ID tokens only prove who signed in, and userinfo tells the rest, with roles as groups, as of Authelia.
// Client `chat` is confidential, and comes back to one of REDIRECT_URI; `tool` is a public one, as a program on somebody's machine is.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { SignJWT, importJWK } from 'jose';
import Provider, { interactionPolicy } from 'oidc-provider';

const [port, ...redirectUris] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const API = 'urn:stoker:api';
const thin = process.env.THIN === '1';
const people = { carol: ['llm-admin'], dave: ['llm-user'], gina: ['llm-guest'], mallory: [], eve: ['visitor'], uma: ['llm-user'] };
const spelled = { dave: 'Dave@Example.com' };
const pair = generateKeyPairSync('rsa', { modulusLength: 2048 });
const key = { ...pair.privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };

const claimsOf = (id) => people[id] && {
  sub: `id-of-${id}`, preferred_username: id, name: id, email: spelled[id] ?? `${id}@example.com`, email_verified: id !== 'uma',
  realm_access: { roles: people[id] }, groups: thin ? people[id] : ['everybody'],
};
const policy = interactionPolicy.base();
policy.remove('consent');
const scopes = ['openid', 'profile', 'email', 'offline_access'];
const origins = [...new Set(redirectUris.map((uri) => new URL('/', uri).href))];

const provider = new Provider(issuer, {
  jwks: { keys: [key] },
  clients: [
    { client_id: 'chat', client_secret: 'the-secret-of-the-web-chat', grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'], redirect_uris: redirectUris, post_logout_redirect_uris: origins.flatMap((origin) => [origin, `${origin}auth`]) },
    { client_id: 'tool', application_type: 'native', token_endpoint_auth_method: 'none', grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'], redirect_uris: ['http://127.0.0.1/done'] },
  ],
  scopes,
  claims: { openid: ['sub'], profile: ['name', 'preferred_username', 'realm_access', 'groups'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: thin,
  pkce: { required: () => true },
  findAccount: (context, id) => people[id] && { accountId: id, claims: () => claimsOf(id) },
  loadExistingGrant: async (context) => {
    const { client, session } = context.oidc;
    const grant = new context.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope(scopes.join(' '));
    grant.addResourceScope(API, scopes.join(' '));
    await grant.save();
    return grant;
  },
  // There is no page that asks for consent, so that offline_access alone would be left out.
  issueRefreshToken: (context, client) => client.grantTypeAllowed('refresh_token'),
  extraTokenClaims: (context, token) => {
    const { sub, ...claims } = (token.accountId && claimsOf(token.accountId)) || {};
    return claims;
  },
  interactions: { policy, url: (context, interaction) => `/interaction/${interaction.uid}` },
  cookies: { keys: ['for tests only'] },
  features: {
    devInteractions: { enabled: false },
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (context, client) => (client.clientId === 'tool' ? API : undefined),
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: scopes.join(' '), audience: 'chat', accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'RS256' } } }),
    },
  },
});

provider.use(async (context, next) => {
  if (context.path === '/test/roles') {
    people[context.query.user] = context.query.roles ? context.query.roles.split(',') : [];
    context.body = 'done';
    return;
  }
  if (context.path === '/test/token') {
    const claims = { ...claimsOf(context.query.user), azp: 'chat' };
    const now = Math.floor(Date.now() / 1000);
    context.body = await new SignJWT(claims).setProtectedHeader({ alg: 'RS256', kid: key.kid, typ: 'at+jwt' }).setIssuer(issuer)
      .setAudience(context.query.aud || 'chat').setIssuedAt().setExpirationTime(now + Number(context.query.seconds || 600)).sign(await importJWK(key, 'RS256'));
    return;
  }
  const page = context.path.match(/^\/interaction\/([\w-]+)$/);
  if (!page) return next();
  const details = await provider.interactionDetails(context.req, context.res);
  if (context.method === 'GET') {
    context.type = 'html';
    context.body = `<!doctype html><title>Test identity provider</title><form method="post" action="/interaction/${details.uid}">
      <input name="login"><input name="password" type="password"><button>Sign in</button></form>`;
    return;
  }
  let body = '';
  for await (const piece of context.req) body += piece;
  const form = new URLSearchParams(body);
  const name = form.get('login');
  if (!people[name] || form.get('password') !== `${name}-password`) { context.status = 401; context.body = 'wrong'; return; }
  await provider.interactionFinished(context.req, context.res, { login: { accountId: name } }, { mergeWithLastSubmission: false });
  context.respond = false;
});
provider.listen(Number(port), '127.0.0.1');
