import { type ErrorDetail, MillraceError } from '../../../src/core/errors.ts'
import { errorName, hasMoved, isBusy, isRefused } from './protocol-errors.ts'

/** What kafkajs throws, as far as we look at it. */
interface Thrown {
  readonly name?: unknown
  readonly message?: unknown
  readonly code?: unknown
  readonly type?: unknown
}

/** Codes of node:tls and OpenSSL for a certificate or handshake that does not hold. */
const CERTIFICATE =
  /^(ERR_TLS_|ERR_SSL_|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED|INVALID_CA|HOSTNAME_MISMATCH|EPROTO|ERR_OSSL)|_CERT(IFICATE)?_|_IN_CHAIN$/

/** A failed connection or request to one broker, as an error of ours. */
export function connectionFailure(error: unknown, broker: string, doing: string): MillraceError {
  if (error instanceof MillraceError) return error
  const { name, message, code, type } = (error ?? {}) as Thrown
  const said = typeof message === 'string' ? message.replace(/^Connection error: /, '') : String(error)
  const detail = { cause: error, fields: { broker } }
  if (name === 'KafkaJSSASLAuthenticationError' || type === 'SASL_AUTHENTICATION_FAILED' || type === 'ILLEGAL_SASL_STATE')
    return new MillraceError('MILLRACE_QUEUE_AUTH', `Kafka at ${broker} refused the login: ${said}`, {
      ...detail,
      remedy: 'check queue.sasl: mechanism, username and password as the broker knows them',
    })
  if (typeof code === 'string' && CERTIFICATE.test(code))
    return new MillraceError('MILLRACE_TLS', `the TLS connection to Kafka at ${broker} was refused: ${said} (${code})`, {
      ...detail,
      remedy: 'check queue.tls: ca must hold the authority that signed the broker, whose certificate must name the host',
    })
  const remedy = /secure TLS connection/.test(said)
    ? 'the broker ended the TLS handshake: if it does not speak TLS on this port, give the one on which it does (queue.tls: { mode: disable } secures nothing)'
    : name === 'KafkaJSConnectionClosedError'
      ? 'the broker closed the connection: if it expects TLS, set queue.tls; if it expects a login, set queue.sasl'
      : 'check that the broker runs, and that queue.brokers and its advertised.listeners can be reached from here'
  return new MillraceError('MILLRACE_QUEUE_UNREACHABLE', `Kafka at ${broker} could not be reached ${doing}: ${said}`, {
    ...detail,
    remedy,
  })
}

/** An error code that a broker answered. */
export function answered(code: number, doing: string, fields: NonNullable<ErrorDetail['fields']> = {}): MillraceError {
  const message = `Kafka answered ${errorName(code)} ${doing}`
  if (isRefused(code))
    return new MillraceError('MILLRACE_QUEUE_AUTH', message, {
      fields,
      remedy: 'give the principal the ACLs for it (kafka-acls.sh)',
    })
  if (hasMoved(code) || isBusy(code))
    return new MillraceError('MILLRACE_QUEUE_UNREACHABLE', message, { fields, remedy: 'the cluster is changing leaders: wait' })
  return new MillraceError('MILLRACE_QUEUE_NOT_READY', message, { fields })
}

export function topicMissing(topic: string): MillraceError {
  return new MillraceError('MILLRACE_QUEUE_NOT_READY', `the topic ${topic} does not exist`, {
    fields: { topic },
    remedy: 'if it was there before, acknowledged events went with it: a person must decide',
  })
}
