// The token: asked for once, kept in this browser, asked for again when the worker refuses it.

const KEY = "plexy-ledger.token";
let asking = null;

/** Return the token that is kept, or "". */
export function kept() {
  return localStorage.getItem(KEY) ?? "";
}

/** Return the header that carries a token: the bytes of its UTF-8, one character each. */
export function authorization(token) {
  const bytes = new TextEncoder().encode(`Bearer ${token}`);
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

/** Ask for another token than the one that was refused; false if the reader gives none. */
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
  localStorage.removeItem(KEY);
  showForget();
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
    localStorage.setItem(KEY, document.getElementById("token").value.trim());
    showForget();
    document.getElementById("token-dialog").close();
  });
  document.getElementById("forget").addEventListener("click", () => {
    localStorage.removeItem(KEY);
    location.reload();
  });
}
