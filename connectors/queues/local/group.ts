import type { LocalFile } from './file.ts'

/** ms; a member that has not been heard for so long has died, and its partitions go to the others */
export const LEASE = 5_000
/** ms; how often a member says that it lives */
export const HEARTBEAT = 1_000

interface Partition {
  readonly id: number
  readonly topic: string
}

interface Member {
  readonly id: string
  readonly topics: ReadonlySet<string>
}

/**
 * Who of a group's members should hold which partition: each in its turn goes to the one that has the fewest, of those
 * that want its topic. Every member computes the same from the same rows.
 */
export function share(partitions: readonly Partition[], members: readonly Member[]): ReadonlyMap<number, string> {
  const shares = new Map<number, string>()
  const counts = new Map(members.map(({ id }) => [id, 0]))
  for (const { id, topic } of partitions) {
    let chosen: string | undefined
    for (const member of members)
      if (member.topics.has(topic) && (chosen === undefined || (counts.get(member.id) ?? 0) < (counts.get(chosen) ?? 0)))
        chosen = member.id
    if (chosen === undefined) continue
    shares.set(id, chosen)
    counts.set(chosen, (counts.get(chosen) ?? 0) + 1)
  }
  return shares
}

/**
 * One member's side of its group: leases in the file, kept by heartbeats. They share the work out, nothing more: two
 * members may believe that they hold one partition for a while (one was suspended, a clock jumped), and the sink's owner
 * epoch keeps them apart.
 */
export class Membership {
  readonly #file: LocalFile
  readonly #group: string
  readonly #member: string
  readonly #topics: readonly string[]
  readonly #now: () => number
  #heardAt = 0

  constructor(file: LocalFile, group: string, member: string, topics: readonly string[], now: () => number) {
    this.#file = file
    this.#group = group
    this.#member = member
    this.#topics = topics
    this.#now = now
  }

  /**
   * Takes what is ours to hold and free, gives back what is another's by now.
   * @param held the partitions that we believe to hold
   * @returns the ids of those that we do hold
   */
  settle(held: ReadonlySet<number>): ReadonlySet<number> {
    const now = this.#now()
    const due = now - this.#heardAt >= HEARTBEAT || now < this.#heardAt
    // mostly nothing moves and no heartbeat is due: then nothing is written
    if (!due) {
      const { mine, wanted } = this.#file.snapshot('its groups cannot be read', () => this.#look(now))
      if (equal(mine, held) && equal(mine, wanted)) return mine
    }
    return this.#file.transaction('its groups cannot be written', () => {
      if (due) this.#heartbeat(now)
      const { mine, wanted, taken } = this.#look(now)
      for (const id of mine)
        if (!wanted.has(id)) this.#sql('delete from lease where "group" = ? and partition = ?').run(this.#group, id)
      const holds = new Set<number>()
      for (const id of wanted) {
        if (taken.has(id)) continue
        if (!mine.has(id))
          this.#sql('insert or replace into lease ("group", partition, member) values (?, ?, ?)').run(
            this.#group,
            id,
            this.#member,
          )
        holds.add(id)
      }
      return holds
    })
  }

  leave(): void {
    this.#file.transaction('its groups cannot be written', () => {
      this.#sql('delete from lease where "group" = ? and member = ?').run(this.#group, this.#member)
      this.#sql('delete from member where "group" = ? and id = ?').run(this.#group, this.#member)
    })
  }

  #heartbeat(now: number): void {
    this.#sql('delete from member where "group" = ? and (expires_at <= ? or expires_at > ?)').run(
      this.#group,
      now,
      now + 2 * LEASE,
    )
    this.#sql(
      `insert into member ("group", id, topics, joined_at, expires_at) values (?, ?, ?, ?, ?)
       on conflict do update set expires_at = excluded.expires_at`,
    ).run(this.#group, this.#member, JSON.stringify(this.#topics), now, now + LEASE)
    this.#heardAt = now
  }

  /** the leases as they stand: ours, those we should have, and those of the latter that another living member has yet to give back */
  #look(now: number): {
    readonly mine: ReadonlySet<number>
    readonly wanted: ReadonlySet<number>
    readonly taken: ReadonlySet<number>
  } {
    const members = this.#sql('select id, topics from member where "group" = ? and expires_at > ? order by joined_at, id')
      .all(this.#group, now)
      .map(({ id, topics }) => ({ id: String(id), topics: new Set(JSON.parse(String(topics)) as string[]) }))
    const living = new Set(members.map(({ id }) => id))
    const partitions = this.#sql('select id, topic from partition order by topic, number').all() as unknown as Partition[]
    const wanted = new Set<number>()
    for (const [id, member] of share(partitions, members)) if (member === this.#member) wanted.add(id)
    const mine = new Set<number>()
    const taken = new Set<number>()
    for (const row of this.#sql('select partition, member from lease where "group" = ?').all(this.#group)) {
      const [id, member] = [Number(row['partition']), String(row['member'])]
      if (member === this.#member) mine.add(id)
      else if (wanted.has(id) && living.has(member)) taken.add(id)
    }
    return { mine, wanted, taken }
  }

  #sql(text: string) {
    return this.#file.sql(text)
  }
}

function equal(one: ReadonlySet<number>, other: ReadonlySet<number>): boolean {
  return one.size === other.size && [...one].every((id) => other.has(id))
}
