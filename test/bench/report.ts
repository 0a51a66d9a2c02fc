import type { Spread } from './statistics.ts'

/** What one benchmark found: figures of all who took part, and how they stand to the targets. */
export interface Section {
  readonly key: string
  readonly title: string
  /** what was measured, and how, in a sentence or two */
  readonly method: string
  readonly lines: readonly Line[]
  readonly verdicts: readonly Verdict[]
  /** anything a reader must know beside the figures */
  readonly notes: readonly string[]
}

export interface Line {
  readonly who: string
  readonly figures: readonly Figure[]
}

export interface Figure {
  readonly what: string
  readonly unit: string
  readonly value: Spread
}

export interface Verdict {
  readonly what: string
  readonly value: Spread
  readonly unit: string
  readonly target: { readonly atLeast: number } | { readonly atMost: number } | null
}

/** Judged by the median. Null: there is no target. */
export function isMet({ value, target }: Verdict): boolean | null {
  if (target === null) return null
  return 'atLeast' in target ? value.median >= target.atLeast : value.median <= target.atMost
}

export function asText(section: Section): string {
  const out = [`(${section.key}) ${section.title}`]
  for (const { who, figures } of section.lines)
    out.push(`  ${who.padEnd(34)} ${figures.map((each) => `${each.what} ${spread(each)}`).join(', ')}`)
  for (const verdict of section.verdicts)
    out.push(`  ${MARKS[String(isMet(verdict)) as keyof typeof MARKS]} ${verdict.what}: ${spread(verdict)}${wanted(verdict)}`)
  for (const note of section.notes) out.push(`    ${note}`)
  return out.join('\n')
}

export function asMarkdown(section: Section): string {
  const out = [`## (${section.key}) ${section.title}`, '', section.method, '']
  const whats = [...new Set(section.lines.flatMap((line) => line.figures.map((each) => each.what)))]
  out.push(`| | ${whats.join(' | ')} |`, `|---|${whats.map(() => '---').join('|')}|`)
  for (const { who, figures } of section.lines) {
    const cells = whats.map((what) => {
      const found = figures.find((each) => each.what === what)
      return found === undefined ? '' : spread(found)
    })
    out.push(`| ${who} | ${cells.join(' | ')} |`)
  }
  out.push('')
  for (const verdict of section.verdicts) {
    const met = isMet(verdict)
    out.push(`- ${verdict.what}: **${spread(verdict)}**${wanted(verdict)}${met === null ? '' : met ? ', met' : ', **missed**'}`)
  }
  if (section.notes.length > 0) out.push('', ...section.notes.map((note) => `${note}  `))
  return out.join('\n')
}

const MARKS = { true: '✓', false: '✗', null: '·' } as const

function wanted({ target, unit }: Verdict): string {
  if (target === null) return ''
  return 'atLeast' in target ? ` (target: at least ${target.atLeast}${unit})` : ` (target: at most ${target.atMost}${unit})`
}

function spread({ value, unit }: { readonly value: Spread; readonly unit: string }): string {
  const { median, min, max } = value
  return `${number(median)}${unit}${min === max ? '' : ` (${number(min)} to ${number(max)})`}`
}

/** three significant digits, or all of a large whole number */
const number = (value: number): string =>
  value >= 100
    ? Math.round(value).toLocaleString('en-US')
    : value
        .toPrecision(3)
        .replace(/(\.\d*?)0+$/, '$1')
        .replace(/\.$/, '')
