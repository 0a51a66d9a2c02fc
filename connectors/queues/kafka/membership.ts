import { setTimeout as sleep } from 'node:timers/promises'
import { codeOf, MillraceError } from '../../../src/core/errors.ts'
import type { TopicPartition } from '../../../src/core/queue.ts'
import type { Cluster, Topics } from './cluster.ts'
import { answered, topicMissing } from './failure.ts'
import type { BrokerLink, Modules } from './kafkajs.ts'
import { ERROR } from './protocol-errors.ts'
import { WireReader } from './wire-reader.ts'

/**
 * One member of a consumer group, by Kafka's classic group protocol: join (all members hand in their partitions), sync
 * (the first among them divides), then heartbeats until the group rebalances. kafkajs' own consumer is not used: it
 * couples membership to fetching and processing, which is where its losses come from (PROTOCOL 1, "Rebalance").
 *
 *     idle → joining → member → (rebalance) → joining …  → left
 */
export interface MembershipOptions {
  readonly group: string
  readonly topics: readonly string[]
  readonly clientId: string
  readonly signal: AbortSignal
}

/** ms without a heartbeat after which the group goes on without us */
const SESSION_TIMEOUT = 10_000
/** ms that the others may take to join again */
const REBALANCE_TIMEOUT = 30_000
/** ms; a rebalance is noticed by a heartbeat, so this is what it takes at least */
const HEARTBEAT_INTERVAL = 1_000
/**
 * ms that beats may go unanswered. A cluster takes 9 s to see that a coordinator has died, and the next one begins to count
 * our session anew; who was given our partitions meanwhile takes them by the sink's own claim.
 */
const COORDINATOR_PATIENCE = 25_000
const RETRY_PAUSE = 200
const PROTOCOL = 'millrace'

interface Coordinated {
  readonly errorCode: number
}

interface JoinAnswer extends Coordinated {
  readonly generationId: number
  readonly memberId: string
  readonly leaderId: string
  readonly members: readonly { readonly memberId: string; readonly memberMetadata: Buffer }[]
}

/** The coordinator is another, or not ready: it is asked for again. */
const COORDINATOR_MOVED = new Set<number>([
  ERROR.COORDINATOR_LOAD_IN_PROGRESS,
  ERROR.COORDINATOR_NOT_AVAILABLE,
  ERROR.NOT_COORDINATOR,
])
/** The group has gone on: it is joined again. */
const REJOIN = new Set<number>([ERROR.ILLEGAL_GENERATION, ERROR.UNKNOWN_MEMBER_ID, ERROR.REBALANCE_IN_PROGRESS])

export class Membership {
  readonly #kafkajs: Modules
  readonly #cluster: Cluster
  readonly #options: MembershipOptions
  #coordinator: BrokerLink | undefined
  #memberId = ''
  #generationId = -1

  constructor(kafkajs: Modules, cluster: Cluster, options: MembershipOptions) {
    this.#kafkajs = kafkajs
    this.#cluster = cluster
    this.#options = options
  }

  /** Joins the group, as often as it takes. @returns the partitions that are ours in this generation */
  async join(topics: Topics): Promise<readonly TopicPartition[]> {
    const until = performance.now() + this.#cluster.requestTimeout + REBALANCE_TIMEOUT
    for (;;) {
      const errorCode = await this.#tryJoin()
      if (typeof errorCode !== 'number') return this.#sync(errorCode, topics, until)
      await this.#again(errorCode, until, 'to join the group')
    }
  }

  /**
   * Beats until the group rebalances. The group counts beats, not connections: one that has no answer, or meets a
   * coordinator that is no longer it, is followed by the next, at whoever it is by then.
   * @throws when the coordinator cannot be reached or refuses us
   */
  async untilRebalance(): Promise<void> {
    const { signal } = this.#options
    let answeredAt = performance.now()
    const mayLast = (): boolean => performance.now() - answeredAt < COORDINATOR_PATIENCE
    while (!signal.aborted) {
      await sleep(HEARTBEAT_INTERVAL, undefined, { signal }).catch(() => {})
      if (signal.aborted) return
      const errorCode = await this.#beat().catch((error: unknown) => {
        if (codeOf(error) !== 'MILLRACE_QUEUE_UNREACHABLE' || !mayLast()) throw error
        return null
      })
      if (errorCode === ERROR.NONE) answeredAt = performance.now()
      if (errorCode === ERROR.NONE || errorCode === null) continue
      this.#note(errorCode)
      if (COORDINATOR_MOVED.has(errorCode) && mayLast()) continue
      if (REJOIN.has(errorCode) || COORDINATOR_MOVED.has(errorCode)) return
      throw this.#refused(errorCode, 'to a heartbeat')
    }
  }

  async #beat(): Promise<number> {
    const { errorCode } = await this.#ask<Coordinated>('Heartbeat', {
      groupId: this.#options.group,
      groupGenerationId: this.#generationId,
      memberId: this.#memberId,
    })
    return errorCode
  }

  /** Tells the group where we are, for lag displays. */
  async commit(offsets: readonly (TopicPartition & { readonly offset: bigint })[]): Promise<void> {
    if (!this.#coordinator) return
    const topics = Array.from(
      Map.groupBy(offsets, ({ topic }) => topic),
      ([topic, partitions]) => ({
        topic,
        partitions: partitions.map(({ partition, offset }) => ({ partition, offset: String(offset) })),
      }),
    )
    await this.#ask('OffsetCommit', {
      groupId: this.#options.group,
      groupGenerationId: this.#generationId,
      memberId: this.#memberId,
      topics,
    })
  }

  /** Leaves at once, over a new connection if need be, so that the others need not wait for our session to end. */
  async leave(): Promise<void> {
    if (this.#memberId === '') return
    await this.#ask('LeaveGroup', { groupId: this.#options.group, memberId: this.#memberId })
    this.#memberId = ''
  }

  async #tryJoin(): Promise<JoinAnswer | number> {
    const answer = await this.#ask<JoinAnswer>('JoinGroup', {
      groupId: this.#options.group,
      sessionTimeout: SESSION_TIMEOUT,
      rebalanceTimeout: REBALANCE_TIMEOUT,
      memberId: this.#memberId,
      protocolType: 'consumer',
      groupProtocols: [
        { name: PROTOCOL, metadata: this.#kafkajs.MemberMetadata.encode({ version: 0, topics: this.#options.topics }) },
      ],
    })
    // a new member is given its name first, and joins with it
    if (answer.errorCode === ERROR.MEMBER_ID_REQUIRED || answer.errorCode === ERROR.NONE) this.#memberId = answer.memberId
    if (answer.errorCode !== ERROR.NONE) return answer.errorCode
    this.#generationId = answer.generationId
    return answer
  }

  async #sync(joined: JoinAnswer, topics: Topics, until: number): Promise<readonly TopicPartition[]> {
    const { errorCode, memberAssignment } = await this.#ask<Coordinated & { memberAssignment: Buffer }>('SyncGroup', {
      groupId: this.#options.group,
      generationId: this.#generationId,
      memberId: this.#memberId,
      groupAssignment: joined.leaderId === this.#memberId ? this.#divide(joined, topics) : [],
    })
    if (errorCode !== ERROR.NONE) {
      await this.#again(errorCode, until, 'to sync with the group')
      return this.join(topics)
    }
    return readAssignment(memberAssignment)
  }

  #divide({ members }: JoinAnswer, topics: Topics): readonly { memberId: string; memberAssignment: Buffer }[] {
    const { MemberMetadata, MemberAssignment } = this.#kafkajs
    const subscribed = members.map(({ memberId, memberMetadata }) => ({
      memberId,
      topics: MemberMetadata.decode(memberMetadata).topics,
    }))
    return Array.from(divide(subscribed, topics), ([memberId, assignment]) => ({
      memberId,
      memberAssignment: MemberAssignment.encode({ version: 0, assignment: Object.fromEntries(assignment) }),
    }))
  }

  /** One request to the coordinator; where it is a stranger to the group, the answer says so. */
  async #ask<Answer>(api: string, options: object): Promise<Answer> {
    this.#coordinator ??= await this.#findCoordinator()
    try {
      return await this.#cluster.call<Answer>(
        this.#coordinator,
        api,
        options,
        `as coordinator of the group ${this.#options.group}`,
      )
    } catch (error) {
      this.#coordinator = undefined
      throw error
    }
  }

  async #findCoordinator(): Promise<BrokerLink> {
    const { group } = this.#options
    const until = performance.now() + this.#cluster.requestTimeout
    for (;;) {
      const doing = `for the coordinator of the group ${group}`
      const options = { groupId: group, coordinatorType: 0 }
      const answer = await this.#cluster.call<Coordinated & { coordinator: { host: string; port: number } }>(
        await this.#cluster.any(),
        'GroupCoordinator',
        options,
        doing,
      )
      if (answer.errorCode === ERROR.NONE) return this.#cluster.at(answer.coordinator)
      await this.#again(answer.errorCode, until, doing)
    }
  }

  /** Whether what was asked may be asked again; a moment later, where it was not about us. */
  async #again(errorCode: number, until: number, doing: string): Promise<void> {
    this.#note(errorCode)
    if (errorCode === ERROR.MEMBER_ID_REQUIRED) return
    if (!REJOIN.has(errorCode) && !COORDINATOR_MOVED.has(errorCode)) throw this.#refused(errorCode, doing)
    this.#options.signal.throwIfAborted()
    if (performance.now() > until) throw answered(ERROR.COORDINATOR_NOT_AVAILABLE, doing, { group: this.#options.group })
    if (COORDINATOR_MOVED.has(errorCode)) await sleep(RETRY_PAUSE)
  }

  #note(errorCode: number): void {
    if (errorCode === ERROR.UNKNOWN_MEMBER_ID) this.#memberId = ''
    if (COORDINATOR_MOVED.has(errorCode)) this.#coordinator = undefined
  }

  #refused(errorCode: number, doing: string): MillraceError {
    const { group } = this.#options
    if (errorCode !== ERROR.INCONSISTENT_GROUP_PROTOCOL) return answered(errorCode, `${doing} (${group})`, { group })
    return new MillraceError('MILLRACE_QUEUE_NOT_READY', `the group ${group} is in use by consumers that are not Millrace`, {
      fields: { group },
      remedy: 'stop them, or rename the pipeline or the sink',
    })
  }
}

/** version i16, [topic, [partition i32]]. kafkajs makes an object of it by assignment, which loses a topic called __proto__. */
function readAssignment(bytes: Buffer): readonly TopicPartition[] {
  if (bytes.length === 0) return []
  const reader = new WireReader(bytes)
  reader.skip(2)
  return reader
    .array(() => {
      const topic = reader.string()
      return reader.array(() => ({ topic, partition: reader.int32() }))
    })
    .flat()
}

/** Each partition to one of the members that follow its topic, in turn, so that the shares differ by one at most. */
export function divide(
  members: readonly { readonly memberId: string; readonly topics: readonly string[] }[],
  topics: Topics,
): ReadonlyMap<string, ReadonlyMap<string, number[]>> {
  const shares = new Map<string, Map<string, number[]>>()
  const ordered = [...members].sort((a, b) => (a.memberId < b.memberId ? -1 : 1))
  for (const { memberId } of ordered) shares.set(memberId, new Map())
  let turn = 0
  for (const [topic, partitions] of [...topics].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const followers = ordered.filter((member) => member.topics.includes(topic))
    if (followers.length === 0) continue
    for (const { partition } of partitions) {
      const { memberId } = followers[turn++ % followers.length] as { memberId: string }
      const share = shares.get(memberId) as Map<string, number[]>
      const own = share.get(topic)
      if (own) own.push(partition)
      else share.set(topic, [partition])
    }
  }
  return shares
}

/**
 * The partitions of the topics, as they are now.
 * @throws MILLRACE_QUEUE_NOT_READY when one does not exist
 * @throws MILLRACE_PARTITIONS_CHANGED when one has fewer of them than before: it was made anew
 */
export async function pinned(cluster: Cluster, topics: readonly string[], before: Topics | null): Promise<Topics> {
  const found = await cluster.metadata(topics)
  for (const topic of topics) {
    const now = found.get(topic)?.length
    const then = before?.get(topic)?.length
    if (now === undefined) throw topicMissing(topic)
    if (then !== undefined && now < then)
      throw new MillraceError('MILLRACE_PARTITIONS_CHANGED', `the topic ${topic} has ${now} partitions, and had ${then}`, {
        fields: { topic, now, before: then },
        remedy: 'what stood in the others is gone: find out who deleted the topic and made it again',
      })
  }
  return found
}
