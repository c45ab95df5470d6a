import { useEffect, useRef, useState } from "preact/hooks";

import { Dialog } from "./dialog";

/** A key, such as `j` or `Enter`, and what it does on this page. */
export type Shortcut = { key: string; does: string; run: () => void };

/** The shortcuts of a page, and `?`, which lists them in a dialog.
 *
 * They work wherever the keyboard is not needed otherwise: not in a field, nor with Ctrl, Alt or Meta. A
 * key that is held down works once.
 */
export function Shortcuts(props: { keys: Shortcut[] }) {
  const [isOpen, setOpen] = useState(false);
  const latest = useRef(props.keys);
  latest.current = props.keys;
  useEffect(() => {
    function press(event: KeyboardEvent) {
      if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented || event.repeat) return;
      if (isTaken(event.target as HTMLElement, event.key)) return;
      if (event.key === "?") setOpen(true);
      const found = latest.current.find(({ key }) => key === event.key);
      if (!found && event.key !== "?") return;
      event.preventDefault();
      found?.run();
    }
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
  return (
    <>
      <button class="plain" onClick={() => setOpen(true)}>
        <kbd>?</kbd> Shortcuts
      </button>
      {isOpen && (
        <Dialog title="Keyboard shortcuts" onClose={() => setOpen(false)}>
          <dl class="shortcuts">
            {[...props.keys, { key: "?", does: "Show this list" }].map(({ key, does }) => (
              <div key={key}>
                <dt>
                  <kbd>{key}</kbd>
                </dt>
                <dd>{does}</dd>
              </div>
            ))}
          </dl>
        </Dialog>
      )}
    </>
  );
}

function isTaken(target: HTMLElement, key: string): boolean {
  if (document.querySelector("dialog[open]")) return true;
  if (target.closest("input, select, textarea")) return true;
  // Enter on a link that leads to what is shown already is free.
  return key === "Enter" && target.closest("a:not([aria-current]), button, summary") !== null;
}
