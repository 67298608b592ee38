// Calls to our own back end. The access token lives in this module only; the refresh token is in a cookie
// that no script can read.

const SIGNED_IN = "smart-home-signed-in";
const AWAY = "The server cannot be reached. Please check your connection.";

let session = null;
let onEnd = () => {};

export class Problem extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function send(method, path, body, token) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Problem(AWAY, 0);
  }
  if (answer.status === 204) return null;
  const content = await answer.json().catch(() => null);
  if (answer.ok && content !== null) return content;
  const wait = Number(answer.headers.get("Retry-After"));
  const message = content?.message ?? "Something went wrong on our side.";
  throw new Problem(answer.status === 429 && wait ? `${message} (${wait} s)` : message, answer.status);
}

function open(answer) {
  session = { user: answer.user, token: answer.access_token, until: Date.now() + answer.expires_in * 1000 };
  localStorage.setItem(SIGNED_IN, "1");
  return session.user;
}

function end() {
  session = null;
  localStorage.removeItem(SIGNED_IN);
}

export const login = async (fields) => open(await send("POST", "/auth/login", { ...fields, refresh_in: "cookie" }));
export const register = async (fields) => open(await send("POST", "/auth/register", { ...fields, refresh_in: "cookie" }));

/** Log out here, also when the server cannot be told. */
export async function logout() {
  end();
  await send("POST", "/auth/logout").catch(() => {});
}

/** Called when the session has ended, by time or from elsewhere. */
export function whenSessionEnds(callback) {
  onEnd = callback;
}

/** Go on with the session of the last visit; null when there is none. */
export async function resume() {
  if (!localStorage.getItem(SIGNED_IN)) return null;
  try {
    return await refresh();
  } catch (error) {
    if (error.status !== 401) throw error;
    end();
    return null;
  }
}

// A refresh token works once: tabs must not use the same one at the same time.
async function refresh() {
  const run = async () => open(await send("POST", "/auth/refresh"));
  return navigator.locks ? navigator.locks.request("smart-home-refresh", run) : run();
}

/** Return a token that is good for a while. */
export async function currentToken() {
  if (!session) throw new Problem("Please log in.", 401);
  if (session.until - Date.now() < 30_000) await renew();
  return session.token;
}

async function renew() {
  try {
    await refresh();
  } catch (error) {
    if (error.status === 401) {
      end();
      onEnd();
    }
    throw error;
  }
}

/** Call the API as whoever is logged in. */
export async function call(method, path, body) {
  const token = await currentToken();
  try {
    return await send(method, path, body, token);
  } catch (error) {
    if (error.status !== 401) throw error;
    await renew();
    return send(method, path, body, session.token);
  }
}
