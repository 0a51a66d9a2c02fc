/** One line of `millrace check`, and what a start refuses or warns about. */
export interface Finding {
  /** `blocker`: running would lose data or cannot work. `warning`: works, but a person should know. */
  readonly level: 'blocker' | 'warning' | 'ok'
  /** where it was found: `source`, `queue`, `sinks.warehouse` … */
  readonly subject: string
  readonly message: string
  /** what to do about it: a command, a setting or a statement to run */
  readonly remedy?: string
}
