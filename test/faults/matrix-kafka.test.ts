import { requires } from '../support/requires.ts'
import { holdShort } from './matrix/short-form.ts'

/* See matrix.test.ts: a file of its own, so that the two share a run's time. */
requires('kafka', 'java')('over Kafka', () =>
  holdShort('kafka', [
    ['1', 'kill -9 of the relay'],
    ['3', 'kill -9 of the only broker'],
    ['4', 'the answer to a produce request is lost'],
  ]),
)
