// The token: asked for once, and again when the worker refuses it. It lasts as long as the tab, or,
// if the reader wants that, in this browser until it is forgotten. It stands in no address.

const KEY = "plexy-ledger.token";
let asking = null;

/** Return the token that is kept, or "". */
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
