import { useEffect, useState } from "preact/hooks";

/** A value outside of components, which they read with `useStore`. */
export class Store<Value> {
  private readonly listeners = new Set<() => void>();

  constructor(private value: Value) {}

  get(): Value {
    return this.value;
  }

  set(value: Value) {
    if (Object.is(value, this.value)) return;
    this.value = value;
    for (const listener of [...this.listeners]) listener();
  }

  /** Calls the listener at each change, until the function that is returned is called. */
  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }
}

/** The present value of a store; the component renders again when it changes. */
export function useStore<Value>(store: Store<Value>): Value {
  const [value, setValue] = useState(() => ({ of: store.get() }));
  useEffect(() => {
    const read = () => setValue({ of: store.get() });
    // It may have changed between the first rendering and this effect.
    if (!Object.is(store.get(), value.of)) read();
    return store.subscribe(read);
  }, [store]);
  return value.of;
}
