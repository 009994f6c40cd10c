// Makes the page light or dark. The page follows the system's theme until the reader chooses a
// theme. This script runs before the first paint, so that a dark page never flashes white.
(() => {
  const KEY = "plexy-ledger.theme";
  const CHOICES = ["system", "light", "dark"];
  const root = document.documentElement;

  function kept() {
    const value = localStorage.getItem(KEY);
    return CHOICES.includes(value) ? value : "system";
  }

  function apply(choice) {
    if (choice === "system") delete root.dataset.theme;
    else root.dataset.theme = choice;
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${choice}`;
  }

  apply(kept());
  document.addEventListener("DOMContentLoaded", () => {
    apply(kept());
    document.getElementById("theme").addEventListener("click", () => {
      const next = CHOICES[(CHOICES.indexOf(kept()) + 1) % CHOICES.length];
      localStorage.setItem(KEY, next);
      apply(next);
    });
  });
})();
