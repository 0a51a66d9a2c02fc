import { pino } from 'pino'
import type { Log } from '../core/connector.ts'
import { MillraceError } from '../core/errors.ts'
import type { Secrets } from './secrets.ts'

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

export interface LogOptions {
  readonly level: LogLevel
  readonly secrets: Secrets
  /** takes whole lines; default: standard error, for data alone goes to standard output */
  readonly write?: (line: string) => void
  /** lines for people instead of JSON; default: when standard error is a terminal */
  readonly pretty?: boolean
}

export function createLog(options: LogOptions): Log {
  const write = options.write ?? ((line) => void process.stderr.write(line))
  const pretty = options.pretty ?? (options.write === undefined && process.stderr.isTTY)
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: describeError, err: describeError },
    },
    { write: (line) => write(options.secrets.scrub(pretty ? forPeople(line) : line)) },
  )
}

/** What a log says of an error: never a payload. A Postgres error's `detail` holds row values, so it is not among it. */
export function describeError(error: unknown): object {
  if (!(error instanceof Error)) return { message: String(error) }
  const cause = error.cause instanceof Error ? { cause: describeError(error.cause) } : {}
  if (error instanceof MillraceError)
    return {
      code: error.code,
      message: error.message,
      ...(error.remedy !== undefined && { remedy: error.remedy }),
      ...error.fields,
      ...cause,
    }
  const code = (error as { code?: unknown }).code
  const named = typeof code === 'string' ? { code } : {}
  // the messages of data exceptions and constraint violations quote the offending value
  if (typeof code === 'string' && /^2[23]\w{3}$/.test(code)) {
    const { table, column, constraint } = error as { table?: unknown; column?: unknown; constraint?: unknown }
    return { ...named, message: 'refused by Postgres', table, column, constraint }
  }
  // so do those of JSON.parse
  if (error instanceof SyntaxError) return { ...named, message: 'a text is not what it should be (SyntaxError)', ...cause }
  return { ...named, message: error.message, ...(error instanceof TypeError && { stack: error.stack }), ...cause }
}

const COLOURS: Readonly<Record<string, string>> = {
  debug: '\u001b[90m',
  info: '\u001b[36m',
  warn: '\u001b[33m',
  error: '\u001b[31m',
}

function forPeople(line: string): string {
  const { level, time, msg, ...fields } = JSON.parse(line) as { level: string; time: string; msg?: string } & Record<
    string,
    unknown
  >
  const rest = Object.entries(fields).map(
    ([name, value]) => ` \u001b[90m${name}=\u001b[0m${typeof value === 'string' ? value : JSON.stringify(value)}`,
  )
  return `\u001b[90m${time.slice(11, 23)}\u001b[0m ${COLOURS[level] ?? ''}${level.padEnd(5)}\u001b[0m ${msg ?? ''}${rest.join('')}\n`
}
