// A real OpenID Connect issuer (npm's certified oidc-provider) on loopback, for the tests of logging in.
//
//   node issuer.mjs [PORT]
//
// Prints {"issuer": URL}. Knows every account name; the role `operator` belongs to `olga`. Public client `kodo-cli` with
// the device flow, and the code flow for a page on loopback, whose user is named by the cookie `account`; access tokens are JWTs for the resource that was asked for. A user code is approved, as its user would
// in a browser, by POST /approve?user_code=…&account=…; POST /rotate has it sign with a new key from then on.
import { createServer } from "node:http";
import { generateKeyPairSync, randomUUID } from "node:crypto";
import Provider from "oidc-provider";

const kept = new Map(); // survives a rotation, as a database would

class Adapter {
  constructor(model) { this.model = model; }
  key(id) { return `${this.model}:${id}`; }
  async upsert(id, payload) { kept.set(this.key(id), payload); }
  async find(id) { return kept.get(this.key(id)); }
  async findByUserCode(code) { return this.first((each) => each.userCode === code); }
  async findByUid(uid) { return this.first((each) => each.uid === uid); }
  first(fits) {
    for (const [key, value] of kept) if (key.startsWith(`${this.model}:`) && fits(value)) return value;
    return undefined;
  }
  async destroy(id) { kept.delete(this.key(id)); }
  async consume(id) { kept.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }
  async revokeByGrantId(grantId) {
    for (const [key, value] of kept) if (value.grantId === grantId) kept.delete(key);
  }
}

const newKey = () => {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid: randomUUID(), use: "sig", alg: "RS256" };
};
const cookieKey = randomUUID();

function provider(issuer, key) {
  const made = new Provider(issuer, {
    adapter: Adapter,
    jwks: { keys: [key] },
    cookies: { keys: [cookieKey] },
    clients: [{
      client_id: "kodo-cli",
      token_endpoint_auth_method: "none",
      application_type: "native",
      redirect_uris: ["http://127.0.0.1/"], // any port: RFC 8252, section 7.3
      response_types: ["code"],
      grant_types: ["authorization_code", "urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
    }],
    scopes: ["openid", "offline_access"],
    ttl: { AccessToken: 60, DeviceCode: 600, RefreshToken: 3600, Grant: 3600, Interaction: 600, Session: 3600 },
    issueRefreshToken: async () => true,
    rotateRefreshToken: true,
    findAccount: async (_, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    extraTokenClaims: async (_, token) => ({ roles: token.accountId === "olga" ? ["operator"] : [] }),
    features: {
      devInteractions: { enabled: false },
      deviceFlow: { enabled: true },
      dPoP: { enabled: process.env.DPOP !== "off" },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: async (_, resource) => ({
          scope: "openid", audience: resource, accessTokenFormat: "jwt", accessTokenTTL: 60,
        }),
        useGrantedResource: async () => true,
      },
    },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  });
  made.use(async (context, next) => {
    if (!context.path.startsWith("/interaction/")) return next();
    const { prompt, params } = await made.interactionDetails(context.req, context.res);
    const account = /(?:^|; )account=([^;]+)/.exec(context.headers.cookie ?? "")?.[1];
    let result = { login: { accountId: account } };
    if (prompt.name === "consent") {
      const grant = new made.Grant({ accountId: account, clientId: params.client_id });
      grant.addOIDCScope("openid offline_access");
      for (const resource of [params.resource ?? []].flat()) grant.addResourceScope(resource, "openid");
      result = { consent: { grantId: await grant.save() } };
    }
    await made.interactionFinished(context.req, context.res, result, { mergeWithLastSubmission: true });
    context.respond = false;
  });
  return made.callback();
}

// What a user does in a browser: opens the page, confirms the code, logs in, consents.
async function approve(issuer, userCode, account) {
  const cookies = new Map([["account", account]]);
  const go = async (url, init = {}) => {
    for (let hops = 0; hops < 12; hops += 1) {
      const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
      const response = await fetch(url, { ...init, redirect: "manual", headers: { ...init.headers, cookie } });
      for (const set of response.headers.getSetCookie()) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(set);
        if (value) cookies.set(name, value); else cookies.delete(name);
      }
      const next = response.headers.get("location");
      if (!next) return { status: response.status, text: await response.text(), url };
      url = new URL(next, url).href;
      init = {};
    }
    throw new Error("it goes round in circles");
  };
  const post = (fields) => go(`${issuer}/device`, {
    method: "POST",
    body: new URLSearchParams(fields).toString(),
    headers: { "content-type": "application/x-www-form-urlencoded" },
  });
  const xsrf = (text) => /name="xsrf" value="([^"]+)"/.exec(text)?.[1];
  const asked = await go(`${issuer}/device`);
  const confirm = await post({ xsrf: xsrf(asked.text), user_code: userCode });
  return post({ xsrf: xsrf(confirm.text) ?? xsrf(asked.text), user_code: userCode, confirm: "yes" });
}

let answer = null;
const server = createServer(async (request, response) => {
  const url = new URL(request.url, "http://localhost");
  try {
    if (request.method === "POST" && url.pathname === "/approve") {
      const done = await approve(issuer, url.searchParams.get("user_code"), url.searchParams.get("account"));
      response.writeHead(done.status).end(done.text);
    } else if (request.method === "POST" && url.pathname === "/rotate") {
      answer = provider(issuer, newKey());
      response.end();
    } else {
      answer(request, response);
    }
  } catch (error) {
    response.writeHead(500).end(String(error.stack));
  }
});
let issuer = "";
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  answer = provider(issuer, newKey());
  console.log(JSON.stringify({ issuer }));
});
