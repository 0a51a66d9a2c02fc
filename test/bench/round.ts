import { assertReplica, shownUpTo } from './backlog.ts'
import type { Contender } from './contender.ts'
import { type Drain, timeDrain } from './drain.ts'
import { topOfProfile } from './profile.ts'
import { type Stage, withClient } from './stage.ts'

/** Who measured what, round by round, in the order of the rounds. */
export class Findings {
  readonly drains = new Map<string, Drain[]>()
  /** lines for people, of the first round that was profiled */
  readonly profiles: string[] = []
  readonly #stage: Stage
  readonly #say: (line: string) => void

  constructor(stage: Stage, say: (line: string) => void) {
    this.#stage = stage
    this.#say = say
  }

  /** Lets the contender drain `total` events that wait in its source, to the queue or on to its replica. */
  async run(who: string, contender: Contender, total: number, replica?: string): Promise<void> {
    const { topics } = this.#stage
    const running = await contender.start()
    const inQueue = (): Promise<number> => topics.length(running.topic)
    const common = { tested: running.tested, begun: inQueue, total, assertAlive: () => running.assertAlive() }
    let profiles: ReadonlyMap<string, string> = new Map()
    try {
      const drain =
        replica === undefined
          ? await timeDrain({ ...common, through: inQueue })
          : await withClient(replica, async (client) => {
              const found = await timeDrain({ ...common, through: () => shownUpTo(client, total) })
              await assertReplica(client, total)
              return found
            })
      this.drains.set(who, [...(this.drains.get(who) ?? []), drain])
      this.#say(`  ${who}: ${Math.round(drain.perSecond)} events/s, ${Math.round(drain.warmPerSecond)} in the second half`)
    } finally {
      profiles = await running.stop()
      await topics.remove([running.topic])
    }
    if (this.profiles.length === 0)
      for (const [role, file] of profiles)
        this.profiles.push(`where the ${role}'s time went (${who}):`, ...(await topOfProfile(file)))
  }
}
