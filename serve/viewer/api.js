// The endpoint, asked from its own page. The key lives in this module's memory and nowhere else.

const ATTEMPTS = 5;
let key = "";

export class Refused extends Error {
  constructor(status, reason, expected = "", remedy = "") {
    super(reason);
    Object.assign(this, { status, expected, remedy });
  }
}

export function useKey(text) {
  key = text.trim();
}

export const health = () => asked("healthz").then((response) => response.json());
export const card = (digest) => asked(`v1/bundles/${digest}`).then((response) => response.json());

export async function predict(image, mpp, signal) {
  const response = await asked("v1/predict", { method: "POST", body: image, headers: scale(mpp), signal });
  return response.json();
}

// `bundle` is the one that answered: a canary's probability is not explained by another model.
export async function explain(image, bundle, signal) {
  const response = await asked(`v1/explain?model=${bundle}`, { method: "POST", body: image, signal });
  return { png: await response.blob(), scale: Number(response.headers.get("x-explanation-scale")) };
}

const slidePath = (name, part = "") => `v1/slides/${encodeURIComponent(name)}${part}`;
export const slides = () => asked("v1/slides").then((response) => response.json());
export const slide = (name) => asked(slidePath(name)).then((response) => response.json());
export const heatMap = (name) => asked(slidePath(name, "/heat.png")).then((response) => response.blob());
export const lesions = (name) => asked(slidePath(name, "/lesions")).then((response) => response.json());

export async function corrections(name) {
  const response = await asked(slidePath(name, "/corrections"));
  return { geojson: await response.json(), version: response.headers.get("etag") };
}

// Returns the new version; refused with 412 where somebody else has saved since `version`.
export async function saveCorrections(name, geojson, version) {
  const headers = { "If-Match": version || '""', "Content-Type": "application/geo+json" };
  const response = await asked(slidePath(name, "/corrections"), { method: "PUT", body: JSON.stringify(geojson), headers });
  return response.headers.get("etag");
}

export const credentials = () => (key ? { Authorization: `Bearer ${key}` } : {});

const scale = (mpp) => (mpp ? { "X-MPP-UM-PX": mpp } : {});

async function asked(path, options = {}) {
  const headers = { ...options.headers, ...credentials() };
  for (let attempt = 1; ; attempt += 1) {
    let response;
    try {
      response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "The endpoint does not answer.", "", "Check that it runs, then try again.");
    }
    if (response.ok) return response;
    const isBusy = response.status === 503 || response.status === 429;
    if (!isBusy || attempt === ATTEMPTS) throw await refusal(response);
    await pause(1000 * Math.min(10, Number(response.headers.get("retry-after")) || 1), options.signal);
  }
}

async function refusal(response) {
  try {
    const { reason, expected, remedy } = await response.json();
    return new Refused(response.status, reason || response.statusText, expected, remedy);
  } catch {
    return new Refused(response.status, `The endpoint answered ${response.status}.`);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    }, { once: true });
  });
}
