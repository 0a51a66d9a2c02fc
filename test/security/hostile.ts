/** Names that end a string, a statement, a comment or a prototype where somebody forgot to quote. */
export const HOSTILE: readonly string[] = [
  `a"b`,
  `a'b`,
  `"; drop table canary; --`,
  `'; drop table canary; --`,
  `'); drop table canary; --`,
  `x" cascade; drop table canary; --`,
  `$millrace$; drop table canary; --`,
  'back\\slash',
  "\\'; drop table canary; --",
  '$1',
  '%s %I ${x} {aggregate_type}',
  ' ',
  'line\nbreak\ttab',
  'ünïcødé 😀',
  '‮right to left',
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  'pg_name',
  'select',
  'n'.repeat(60),
]

/** an object with own keys, whatever they are called */
export const own = <T>(...entries: readonly (readonly [string, T])[]): Record<string, T> =>
  Object.fromEntries(entries) as Record<string, T>
