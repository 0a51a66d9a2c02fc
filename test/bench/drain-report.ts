import type { Drain } from './drain.ts'
import type { Line, Verdict } from './report.ts'
import { spreadOf } from './statistics.ts'

export const MEGABYTE = 1_000_000

export function drainLine(who: string, drains: readonly Drain[]): Line {
  const roles = [...(drains[0]?.used.keys() ?? [])]
  return {
    who,
    figures: [
      { what: 'events/s', unit: '', value: spreadOf(drains.map((drain) => drain.perSecond)) },
      { what: 'events/s, second half', unit: '', value: spreadOf(drains.map((drain) => drain.warmPerSecond)) },
      ...roles.flatMap((role) => [
        {
          what: `CPU-s per million (${role})`,
          unit: '',
          value: spreadOf(ofRole(drains, role).map((used) => used.cpuSecondsPerMillion)),
        },
        {
          what: `peak RSS (${role})`,
          unit: ' MB',
          value: spreadOf(ofRole(drains, role).map((used) => used.peakRssBytes / MEGABYTE)),
        },
      ]),
    ],
  }
}

/** Ratios within each round: the machine's speed drifts between them. Both of the whole drain and of its second half. */
export function ratio(
  what: string,
  ours: readonly Drain[] = [],
  theirs: readonly Drain[],
  target: Verdict['target'],
): readonly Verdict[] {
  const over = (of: (drain: Drain) => number): Verdict['value'] =>
    spreadOf(ours.map((drain, round) => of(drain) / of(theirs[round] as Drain)))
  return [
    { what, value: over((drain) => drain.perSecond), unit: 'x', target },
    { what: `${what}, second half`, value: over((drain) => drain.warmPerSecond), unit: 'x', target },
  ]
}

/** The most that any round saw is what counts. */
export function rssVerdict(role: string, drains: readonly Drain[], megabytes: number): Verdict {
  const most = Math.max(...ofRole(drains, role).map((used) => used.peakRssBytes / MEGABYTE))
  return {
    what: `peak RSS of the ${role}, the most of all rounds`,
    value: spreadOf([most]),
    unit: ' MB',
    target: { atMost: megabytes },
  }
}

const ofRole = (drains: readonly Drain[], role: string) =>
  drains.map(({ used }) => {
    const found = used.get(role)
    if (found === undefined) throw new Error(`no figures of the ${role}`)
    return found
  })
