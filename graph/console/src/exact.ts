// JSON without loss. `JSON.parse` rounds numbers of more than 17 digits, and forgets how one was
// written. What people approve must be shown digit by digit, so such numbers are marked strings until
// they are shown.

const MARK = "\uE000"; // of the private use area: no text begins with it
const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** JSON text in which each number that JavaScript cannot keep is a string with a mark. */
export function markNumbers(text: string): string {
  return text.replace(TOKEN, (token) => {
    // A text that begins with the mark gets another one, so that it is not taken for a number.
    if (token.startsWith('"')) return token.startsWith(`"${MARK}`) ? `"${MARK}${token.slice(1)}` : token;
    return String(Number(token)) === token ? token : `"${MARK}${token}"`;
  });
}

/** A value as JSON text, with marked numbers as the server wrote them.
 *
 * Characters that are not seen, or that change the direction of what is, are shown by their code.
 */
export function exactText(value: unknown): string {
  return JSON.stringify(value, null, 2)
    .replace(/"(?:[^"\\]|\\.)*"/g, (token) => {
      if (token.startsWith(`"${MARK}${MARK}`)) return `"${token.slice(2)}`;
      return token.startsWith(`"${MARK}`) ? token.slice(2, -1) : token;
    })
    .replace(HIDDEN, shown);
}

/** A text in which unseen characters are shown by their code. */
export function visible(text: string): string {
  return text.replace(HIDDEN, shown);
}

const HIDDEN = /[\p{Cf}\p{Co}\p{Zl}\p{Zp}]|(?![\n\t])\p{Cc}/gu;

function shown(character: string): string {
  return `\\u{${character.codePointAt(0)!.toString(16)}}`;
}

/** The digits of a marked number, or null. */
export function markedNumber(text: string): string | null {
  return text.startsWith(MARK) && !text.startsWith(MARK + MARK) ? text.slice(1) : null;
}
