/** Dark and light: as the system has it, or as the person has chosen in this browser. */

import { Store } from "./store";

const KEY = "troupe:theme";

export type Theme = "light" | "dark";

const system = matchMedia("(prefers-color-scheme: dark)");

function present(): Theme {
  const stored = localStorage.getItem(KEY);
  if (stored === "light" || stored === "dark") return stored;
  return system.matches ? "dark" : "light";
}

export const theme = new Store<Theme>(present());

function show() {
  theme.set(present());
  document.documentElement.dataset.theme = theme.get();
}

/** Changes between dark and light, and remembers it unless it is what the system has. */
export function toggleTheme() {
  const next = theme.get() === "dark" ? "light" : "dark";
  if ((next === "dark") === system.matches) localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, next);
  show();
}

system.addEventListener("change", show);
show();
