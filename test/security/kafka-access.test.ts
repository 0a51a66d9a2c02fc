import { Kafka, logLevel } from 'kafkajs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { OffsetRange, Queue } from '../../src/core/queue.ts'
import { openKafka } from '../connectors/kafka-queue.ts'
import { quietLog } from '../faults/parts.ts'
import { eventually } from '../support/eventually.ts'
import { type KafkaCluster, startKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'

/**
 * With `StandardAuthorizer` and no ACL at all, each thing that the relay and the appliers do is refused, by a message that
 * names the resource, and allowed by exactly the ACLs that `docs/security.md` lists.
 */
const RESOURCE = { topic: 2, group: 3 } as const
const OPERATION = { read: 3, write: 4, create: 5, describe: 8, describeConfigs: 10 } as const
const USERS = { admin: 'admin-Secret-1', relay: 'relay-Secret-1', applier: 'applier-Secret-1' }

interface Acl {
  readonly resource: keyof typeof RESOURCE
  readonly name: string
  readonly operation: keyof typeof OPERATION
}

requires('own-kafka')('a Kafka that allows nothing which was not granted', () => {
  let kafka: KafkaCluster
  let admin: ReturnType<Kafka['admin']>
  const queues: Queue[] = []

  beforeAll(async () => {
    kafka = await startKafka({
      sasl: { mechanism: 'PLAIN', users: USERS },
      properties: {
        'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
        // the brokers themselves come over listeners without a login
        'super.users': 'User:ANONYMOUS;User:admin',
      },
    })
    const sasl = { mechanism: 'plain', username: 'admin', password: USERS.admin } as const
    admin = new Kafka({ brokers: [...kafka.brokers], sasl, logLevel: logLevel.NOTHING }).admin()
    await admin.connect()
    const queue = await as('admin', 'admin')
    await queue.createTopic('followed')
    const publisher = await queue.publisher()
    await publisher.publish([{ topic: 'followed', partition: 0, records: [RECORD] }])
    await publisher.close()
  })
  afterAll(async () => {
    await Promise.all(queues.map((queue) => queue.close()))
    await admin?.disconnect()
    await kafka?.remove()
  })

  async function as(user: keyof typeof USERS, pipeline: string): Promise<Queue> {
    const sasl = { mechanism: 'plain', username: user, password: USERS[user] } as const
    const topics = { partitions: 1, replication: 1 }
    const queue = await openKafka({ brokers: [...kafka.brokers], sasl, topics, requestTimeout: '5s' }, pipeline, quietLog)
    queues.push(queue)
    return queue
  }

  const grant = (user: string, { resource, name, operation }: Acl): Promise<unknown> =>
    admin.createAcls({
      acl: [
        {
          resourceType: RESOURCE[resource],
          resourceName: name,
          resourcePatternType: 3,
          principal: `User:${user}`,
          host: '*',
          operation: OPERATION[operation],
          permissionType: 3,
        },
      ],
    })

  /** Refused before each ACL is there, and done when all are. */
  async function needs(user: keyof typeof USERS, acls: readonly Acl[], work: () => Promise<unknown>): Promise<void> {
    for (const acl of acls) {
      const before = await work().catch((error: unknown) => error)
      expect(before, `without ${acl.operation} on ${acl.name}`).toMatchObject({
        code: 'MILLRACE_QUEUE_AUTH',
        message: expect.stringContaining(acl.name),
        remedy: expect.stringContaining('ACL'),
      })
      await grant(user, acl)
      const said = (error: unknown): string => (error instanceof Error ? error.message : 'done')
      await eventually(async () => said(await work().catch((error: unknown) => error)) !== said(before), {
        what: `${acl.operation} on ${acl.name} to change something`,
      })
    }
    await work()
  }

  const topic = (name: string, operation: Acl['operation']): Acl => ({ resource: 'topic', name, operation })

  test('the relay: makes its topics, publishes, reads what it published, and keeps its state', async () => {
    const queue = await as('relay', 'shop')
    for (const name of ['events', 'millrace.shop.state']) {
      const publishes = async (): Promise<void> => {
        if (name !== 'events') return queue.state.write('shop/1', 'x')
        await queue.createTopic(name)
        const publisher = await queue.publisher()
        await publisher.publish([{ topic: name, partition: 0, records: [RECORD] }]).finally(() => publisher.close())
      }
      // to write implies to describe
      await needs('relay', [topic(name, 'write'), topic(name, 'create')], publishes)
      await needs('relay', [topic(name, 'read')], async () => {
        if (name !== 'events') return void (await queue.state.read('shop/'))
        expect(await queue.topics([name])).toEqual(new Map([[name, 1]]))
        const [range] = await queue.ranges(name)
        for await (const _ of queue.read({ topic: name, partition: 0 }, range as OffsetRange));
      })
    }
    expect((await queue.state.read('shop/')).get('shop/1')).toBe('x')
    await expect(queue.topics(['followed'])).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_AUTH' })
  })

  test('an applier: reads its topics in its group, and writes nothing', async () => {
    const queue = await as('applier', 'shop')
    const group = 'millrace.shop.warehouse'
    const consumes = async (): Promise<void> => {
      const consumer = await queue.consume({
        group,
        topics: ['followed'],
        clientId: 'applier',
        signal: AbortSignal.timeout(20_000),
      })
      try {
        for await (const assignment of consumer) for await (const _ of assignment.read(0n)) return
      } finally {
        await consumer.close()
      }
    }
    await needs(
      'applier',
      [topic('followed', 'describe'), { resource: 'group', name: group, operation: 'read' }, topic('followed', 'read')],
      consumes,
    )
    const publisher = await queue.publisher()
    await expect(publisher.publish([{ topic: 'followed', partition: 0, records: [RECORD] }])).rejects.toMatchObject({
      code: 'MILLRACE_QUEUE_AUTH',
      message: expect.stringContaining('followed'),
    })
    await publisher.close()
    await expect(queue.state.write('shop/2', 'forged')).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_AUTH' })
  })
})

const RECORD = { key: Buffer.from('k'), value: Buffer.from('v'), headers: [] }
