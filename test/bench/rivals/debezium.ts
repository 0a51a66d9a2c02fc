import { CREATE_ORDERS, DEBEZIUM_OUTBOX } from '../backlog.ts'
import type { Contender, Course } from '../contender.ts'
import { execute, type Stage } from '../stage.ts'
import { type ConnectorConfig, startConnect } from './connect.ts'
import type { DebeziumJars } from './debezium-jars.ts'

export interface DebeziumOptions {
  /** how long a batch waits to fill (ms): long for drains, which take it in fewer pieces, short for latency */
  readonly poll: number
}

/**
 * Debezium on Kafka Connect, as its documentation has an outbox, with what was found best for this load: large batches
 * and a large queue, a short poll, a producer that lingers for large batches; a sink task for each partition, batched
 * inserts rewritten by the JDBC driver. acks=all and the idempotent producer are Connect's defaults.
 */
export function debezium(jars: DebeziumJars, stage: Stage, course: Course, options: DebeziumOptions): Contender {
  const { name, source, replica } = course
  const topic = `${name}.order`
  return {
    who: `Debezium ${jars.version}`,
    async prepare() {
      await execute(
        source,
        `create publication ${name} for table ${DEBEZIUM_OUTBOX.table} with (publish = 'insert')`,
        `select pg_create_logical_replication_slot('${name}', 'pgoutput')`,
      )
      if (replica !== undefined) await execute(replica, CREATE_ORDERS)
    },
    async start() {
      await stage.topics.create(topic)
      const worker = await startConnect(jars, stage.brokers)
      try {
        if (replica !== undefined) {
          await worker.add(`${name}-sink`, jdbcSink(replica, topic))
          await stage.topics.followed(`connect-${name}-sink`)
        }
        await worker.add(`${name}-source`, outboxSource(course, options))
      } catch (error) {
        await worker.stop()
        throw error
      }
      return {
        topic,
        tested: [{ role: 'Connect', pid: worker.pid }],
        assertAlive: () => worker.assertRunning(),
        async stop() {
          await worker.stop()
          return new Map()
        },
      }
    },
  }
}

function outboxSource({ name, source, replica }: Course, { poll }: DebeziumOptions): ConnectorConfig {
  const { hostname, port, pathname, username } = new URL(source)
  return {
    'connector.class': 'io.debezium.connector.postgresql.PostgresConnector',
    'tasks.max': '1',
    'database.hostname': hostname,
    'database.port': port,
    'database.user': username,
    'database.password': 'trusted',
    'database.dbname': pathname.slice(1),
    'topic.prefix': name,
    'plugin.name': 'pgoutput',
    'slot.name': name,
    'publication.name': name,
    'publication.autocreate.mode': 'disabled',
    'table.include.list': DEBEZIUM_OUTBOX.table,
    'snapshot.mode': 'no_data',
    'max.batch.size': '8192',
    'max.queue.size': '32768',
    'poll.interval.ms': String(poll),
    'producer.override.linger.ms': poll > 10 ? '5' : '0',
    'producer.override.batch.size': '131072',
    transforms: 'outbox',
    'transforms.outbox.type': 'io.debezium.transforms.outbox.EventRouter',
    'transforms.outbox.table.field.event.key': DEBEZIUM_OUTBOX.columns.aggregateId,
    'transforms.outbox.table.fields.additional.placement': 'type:header:eventType',
    'transforms.outbox.route.by.field': DEBEZIUM_OUTBOX.columns.aggregateType,
    'transforms.outbox.route.topic.replacement': `${name}.\${routedByValue}`,
    ...(replica === undefined ? AS_WRITTEN : WITH_SCHEMA),
  }
}

/** The payload's text goes out as it is. */
const AS_WRITTEN: ConnectorConfig = {
  'key.converter': 'org.apache.kafka.connect.storage.StringConverter',
  'value.converter': 'org.apache.kafka.connect.storage.StringConverter',
}

/** The JDBC sink needs typed records: the router parses the payload and infers its schema, which travels with each. */
const WITH_SCHEMA: ConnectorConfig = { 'transforms.outbox.table.expand.json.payload': 'true' }

function jdbcSink(replica: string, topic: string): ConnectorConfig {
  const { hostname, port, pathname, username } = new URL(replica)
  return {
    'connector.class': 'io.debezium.connector.jdbc.JdbcSinkConnector',
    'tasks.max': '3',
    topics: topic,
    // unspecified: the decimal that JSON carries as a string becomes the column's numeric in the server
    'connection.url': `jdbc:postgresql://${hostname}:${port}${pathname}?reWriteBatchedInserts=true&stringtype=unspecified`,
    'connection.username': username,
    'connection.password': 'trusted',
    'insert.mode': 'upsert',
    'primary.key.mode': 'record_value',
    'primary.key.fields': 'id',
    'schema.evolution': 'none',
    'collection.name.format': 'orders',
    'batch.size': '2000',
    'consumer.override.max.poll.records': '5000',
  }
}
