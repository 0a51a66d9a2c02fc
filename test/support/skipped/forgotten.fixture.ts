import { test } from 'vitest'

test('runs', () => {})
test.skip('was switched off one day', () => {})
