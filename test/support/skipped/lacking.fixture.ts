import { test } from 'vitest'
import { requires } from '../requires.ts'

requires('docker')('over Docker', () => {
  test('runs', () => {})
})

requires('docker', 'kafka')('over Kafka', () => {
  test('one', () => {})
  test('two', () => {})
})
