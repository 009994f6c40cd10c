// Asks the reader for the token, and asks again when the worker refuses the token. The token is
// kept until the tab is closed. If the reader chooses so, it is kept in this browser even after
// that. The token is never in an address.

const KEY = "plexy-ledger.token";
let asking = null;

/** Return the kept token, or "". */
export function kept() {
  return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
}

function keep(token, isForLong) {
  (isForLong ? localStorage : sessionStorage).setItem(KEY, token);
  showForget();
}

function forget() {
  for (const storage of [sessionStorage, localStorage]) storage.removeItem(KEY);
  showForget();
}

/** Return the header with a token; each byte of the header's UTF-8 text becomes one character. */
export function authorization(token) {
  const bytes = new TextEncoder().encode(`Bearer ${token}`);
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

/**
 * Ask for a token other than the refused token; return false if the reader gives no token. If a
 * different token is kept by now, return true without asking.
 */
export function ask(refused) {
  if (kept() !== refused) return Promise.resolve(true);
  asking ??= show(refused).finally(() => {
    asking = null;
  });
  return asking;
}

function show(refused) {
  const dialog = document.getElementById("token-dialog");
  const input = document.getElementById("token");
  document.getElementById("token-wrong").hidden = refused === "";
  forget();
  input.value = "";
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(kept() !== ""), { once: true });
  });
}

function showForget() {
  document.getElementById("forget").hidden = kept() === "";
}

/** Listen to the dialog and to the button that forgets the token. */
export function start() {
  showForget();
  document.getElementById("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    keep(document.getElementById("token").value.trim(), document.getElementById("keep").checked);
    document.getElementById("token-dialog").close();
  });
  document.getElementById("forget").addEventListener("click", () => {
    forget();
    location.reload();
  });
}
