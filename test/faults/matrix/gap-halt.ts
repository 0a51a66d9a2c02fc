import type { Halt } from '../processes.ts'

/** What every halt over missing events owes the person who reads it, in one message. @throws naming what it leaves out */
export function judgeGapHalt(fault: string, wanted: RegExp, { code, message, remedy }: Halt): void {
  const lsns = new Set(message.match(/\b[0-9A-F]+\/[0-9A-F]+\b/g) ?? [])
  const lacking = [
    !wanted.test(code) && `its code is ${code}`,
    lsns.size < 2 && 'it does not say from where to where',
    !/safe/.test(message) && 'it does not say what is safe',
    !/millrace resume --refill.*millrace resume --accept-gap/.test(remedy ?? '') && 'it does not name the command to go on',
  ].filter((one) => one !== false)
  if (lacking.length > 0) throw new Error(`${fault}: ${lacking.join(', ')}: ${code} ${message}\n${remedy}`)
}
