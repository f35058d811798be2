// What is looked at is in the URL's fragment, so that a view can be linked: #view=head&layer=3&head=1

export type Changes = Record<string, string | number | null>;

export class State {
  private values = new URLSearchParams(location.hash.slice(1));

  constructor(private readonly changed: () => void) {
    addEventListener("hashchange", () => {
      const now = location.hash.slice(1);
      if (now === this.values.toString()) return;
      this.values = new URLSearchParams(now);
      this.changed();
    });
  }

  text(key: string, otherwise: string): string {
    return this.values.get(key) ?? otherwise;
  }

  // A number of 0 to n - 1.
  index(key: string, n: number, otherwise = 0): number {
    const text = this.values.get(key);
    const value = text === null ? otherwise : Number(text);
    return Number.isInteger(value) && value >= 0 && value < n ? value : Math.min(otherwise, Math.max(0, n - 1));
  }

  // The fragment after changes; null takes a key away.
  link(changes: Changes): string {
    const values = new URLSearchParams(this.values);
    for (const [key, value] of Object.entries(changes)) {
      if (value === null) values.delete(key);
      else values.set(key, String(value));
    }
    return `#${values.toString()}`;
  }

  // Goes there, with a step in the browser's history.
  go(changes: Changes): void {
    location.hash = this.link(changes);
  }

  // Changes what is remembered and draws again, without a step in the history.
  set(changes: Changes): void {
    this.remember(changes);
    this.changed();
  }

  // Changes what is remembered; the view has already drawn it.
  remember(changes: Changes): void {
    const link = this.link(changes);
    this.values = new URLSearchParams(link.slice(1));
    history.replaceState(null, "", link);
  }
}
