// Finding out who is here.

import { api, type Me, Refusal } from "./api.js";
import { find } from "./dom.js";

/** Logs in by what stands behind `#` in the address, by the cookie, or by asking. */
export async function logIn(): Promise<Me> {
  const shown = fragment();
  let problem = "";
  if (shown) {
    try {
      return await api.login(shown);
    } catch (error) {
      problem = error instanceof Error ? error.message : String(error);
    }
  }
  for (;;) {
    try {
      const me = await api.me();
      if (problem === "") return me;
    } catch (error) {
      if (!(error instanceof Refusal) || error.status !== 401) {
        problem ||= error instanceof Error ? error.message : String(error);
      }
    }
    const token = await askToken(problem);
    try {
      const me = await api.login({ token });
      hideForm();
      return me;
    } catch (error) {
      problem = error instanceof Error ? error.message : String(error);
    }
  }
}

/** Takes the secret out of the address before anything else can see it. */
function fragment(): { token: string } | { ticket: string } | null {
  const params = new URLSearchParams(location.hash.slice(1));
  const [token, ticket] = [params.get("token"), params.get("ticket")];
  if (!token && !ticket) return null;
  history.replaceState(null, "", location.pathname + location.search);
  return token ? { token } : { ticket: ticket ?? "" };
}

function askToken(problem: string): Promise<string> {
  const form = find<HTMLFormElement>("login");
  const input = find<HTMLInputElement>("token");
  find("login-problem").textContent = problem;
  form.hidden = false;
  find("app").hidden = true;
  input.value = "";
  input.focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      if (input.value.trim()) resolve(input.value.trim());
    };
  });
}

function hideForm(): void {
  find("login").hidden = true;
}
