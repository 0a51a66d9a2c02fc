import { styleText } from 'node:util'

/** Where data goes (standard output), and how it looks there. */
export interface Terminal {
  /** whether a person looks at it: then lines may be redrawn and coloured */
  readonly interactive: boolean
  print(line?: string): void
  /** draws over the last line that was drawn so; prints nothing where nobody looks */
  redraw(line: string): void
  style(style: Style, text: string): string
}

export type Style = 'bold' | 'dim' | 'green' | 'yellow' | 'red' | 'cyan'

export function terminalOf(stream: NodeJS.WriteStream, env: NodeJS.ProcessEnv = process.env): Terminal {
  const interactive = stream.isTTY === true && env.TERM !== 'dumb'
  const coloured = interactive && !env.NO_COLOR
  let drawn = false
  const clear = (): string => (drawn ? '\r\u001b[2K' : '')
  return {
    interactive,
    print(line = '') {
      stream.write(`${clear()}${line}\n`)
      drawn = false
    },
    redraw(line) {
      if (!interactive) return
      stream.write(`${clear()}${line}`)
      drawn = true
    },
    style: (style, text) => (coloured ? styleText(style, text, { validateStream: false }) : text),
  }
}

/** the text within the width, as seen: escape sequences take no room */
function visibleLength(text: string): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
  return text.replace(/\u001b\[[0-9;]*m/g, '').length
}

/** Rows as columns of the width of their widest cell; numbers to the right. */
export function table(rows: readonly (readonly string[])[], numeric: readonly number[] = []): readonly string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => visibleLength(row[column] ?? ''))))
  return rows.map((row) =>
    row
      .map((cell, column) => {
        const room = ' '.repeat((widths[column] ?? 0) - visibleLength(cell))
        return numeric.includes(column) ? room + cell : cell + room
      })
      .join('  ')
      .trimEnd(),
  )
}

/** `a, b or c` */
export function oneOf(words: readonly string[]): string {
  return words.join(', ').replace(/, ([^,]*)$/, ' or $1')
}
