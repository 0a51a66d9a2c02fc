import { expect, test } from 'vitest'
import { DEFAULT_TOPIC, topicOf, topicsOf } from '../../src/core/topic-template.ts'

test('each aggregate type has a topic of its own, unless the template says otherwise', () => {
  expect(topicOf(DEFAULT_TOPIC, 'order')).toBe('outbox.event.order')
  expect(topicOf('{aggregate_type}.events', 'order')).toBe('order.events')
  expect(topicOf('everything', 'order')).toBe('everything')
})

test('an aggregate type is put in as it is, whatever it looks like', () => {
  expect(topicOf(DEFAULT_TOPIC, '$&')).toBe('outbox.event.$&')
})

test('a sink finds the topics of what it follows', () => {
  expect(topicsOf(DEFAULT_TOPIC, ['order', 'customer', 'order'])).toEqual(['outbox.event.order', 'outbox.event.customer'])
  expect(topicsOf(DEFAULT_TOPIC, null)).toEqual(['outbox.event.*'])
  expect(topicsOf('everything', ['order', 'customer'])).toEqual(['everything'])
  expect(topicsOf('everything', null)).toEqual(['everything'])
})
