// The log that onnxruntime-web 1.27.0 wrote in Chromium, word for word.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { nodePlacement } from '../page/proof/node-placement.js'

// The demo's decoder.
const webgpu = [
  '2026-11-24 10:17:34.724014 [I:onnxruntime:, graph_transformer.cc:15 Apply] GraphTransformer MemcpyTransformer modified: 0 with status: OK',
  '2026-11-24 10:17:34.724234 [V:onnxruntime:, session_state.cc:1347 VerifyEachNodeIsAssignedToAnEp] Node placements',
  '2026-11-24 10:17:34.724279 [V:onnxruntime:, session_state.cc:1350 VerifyEachNodeIsAssignedToAnEp]  All nodes placed on [WebGpuExecutionProvider]. Number of nodes: 234',
  '2026-11-24 10:17:34.740154 [V:onnxruntime:, session_state.cc:183 CreateGraphInfo] SaveMLValueNameIndexMapping',
]

// Its encoder on WASM.
const cpu = [
  '2026-11-24 10:18:04.451005 [I:onnxruntime:, graph_transformer.cc:15 Apply] GraphTransformer MemcpyTransformer modified: 0 with status: OK',
  '2026-11-24 10:18:04.451105 [V:onnxruntime:, session_state.cc:1347 VerifyEachNodeIsAssignedToAnEp] Node placements',
  '2026-11-24 10:18:04.451124 [V:onnxruntime:, session_state.cc:1350 VerifyEachNodeIsAssignedToAnEp]  All nodes placed on [CPUExecutionProvider]. Number of nodes: 307',
  '2026-11-24 10:18:04.454775 [V:onnxruntime:, session_state.cc:183 CreateGraphInfo] SaveMLValueNameIndexMapping',
]

// Add, DynamicQuantizeLinear, MatMulInteger, Cast and Mul.
const mixed = [
  '2026-11-24 10:22:37.988304 [I:onnxruntime:, graph_transformer.cc:15 Apply] GraphTransformer FuseFp16InitializerToFp32NodeTransformer modified: 0 with status: OK',
  '2026-11-24 10:22:37.992319 [I:onnxruntime:, transformer_memcpy.cc:393 AddCopyNode] Add MemcpyFromHost after i for WebGpuExecutionProvider',
  '2026-11-24 10:22:37.992454 [I:onnxruntime:, transformer_memcpy.cc:393 AddCopyNode] Add MemcpyFromHost after s for WebGpuExecutionProvider',
  '2026-11-24 10:22:37.992529 [I:onnxruntime:, transformer_memcpy.cc:393 AddCopyNode] Add MemcpyToHost before a for WebGpuExecutionProvider',
  '2026-11-24 10:22:37.992669 [I:onnxruntime:, graph_transformer.cc:15 Apply] GraphTransformer MemcpyTransformer modified: 1 with status: OK',
  '2026-11-24 10:22:37.994634 [V:onnxruntime:, session_state.cc:1347 VerifyEachNodeIsAssignedToAnEp] Node placements',
  '2026-11-24 10:22:37.994719 [V:onnxruntime:, session_state.cc:1353 VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [CPUExecutionProvider]. Number of nodes: 2',
  '2026-11-24 10:22:37.994820 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   DynamicQuantizeLinear ()',
  '2026-11-24 10:22:37.994864 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   MatMulInteger ()',
  '2026-11-24 10:22:37.994919 [V:onnxruntime:, session_state.cc:1353 VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [WebGpuExecutionProvider]. Number of nodes: 6',
  '2026-11-24 10:22:37.994964 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   Add (first)',
  '2026-11-24 10:22:37.995009 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   Cast (cast)',
  '2026-11-24 10:22:37.995054 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   Mul (scale)',
  '2026-11-24 10:22:37.995094 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   MemcpyFromHost (Memcpy)',
  '2026-11-24 10:22:37.995139 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   MemcpyFromHost (Memcpy_token_0)',
  '2026-11-24 10:22:37.995184 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   MemcpyToHost (Memcpy_token_1)',
  '\x1b[0;93m2026-11-24 10:22:37.995239 [W:onnxruntime:, session_state.cc:1367 VerifyEachNodeIsAssignedToAnEp] Some nodes were not assigned to the preferred execution providers which may or may not have an negative impact on performance. e.g. ORT explicitly assigns shape related ops to CPU to improve perf.\x1b[m',
]

// The same graph as an .ort file, to which onnxruntime adds no copies.
const ort = [
  '2026-11-24 10:22:38.189874 [V:onnxruntime:, session_state.cc:1347 VerifyEachNodeIsAssignedToAnEp] Node placements',
  '2026-11-24 10:22:38.189929 [V:onnxruntime:, session_state.cc:1353 VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [CPUExecutionProvider]. Number of nodes: 2',
  '2026-11-24 10:22:38.189979 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   DynamicQuantizeLinear ()',
  '2026-11-24 10:22:38.190019 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   MatMulInteger ()',
  '2026-11-24 10:22:38.190064 [V:onnxruntime:, session_state.cc:1353 VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [WebGpuExecutionProvider]. Number of nodes: 3',
  '2026-11-24 10:22:38.190114 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   Add (first)',
  '2026-11-24 10:22:38.190159 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   Cast (cast)',
  '2026-11-24 10:22:38.190199 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   Mul (scale)',
  '\x1b[0;93m2026-11-24 10:22:38.190244 [W:onnxruntime:, session_state.cc:1367 VerifyEachNodeIsAssignedToAnEp] Some nodes were not assigned to the preferred execution providers which may or may not have an negative impact on performance. e.g. ORT explicitly assigns shape related ops to CPU to improve perf.\x1b[m',
]

const bare = { webgpu: 3, cpu: 2, copies: 0, cpuOperators: { DynamicQuantizeLinear: 1, MatMulInteger: 1 } }

test('all nodes on one provider', () => {
  assert.deepEqual(nodePlacement(webgpu), { webgpu: 234, cpu: 0, copies: 0, cpuOperators: {} })
  assert.deepEqual(nodePlacement(cpu), { webgpu: 0, cpu: 307, copies: 0, cpuOperators: null })
})

test('nodes on both providers, and the copies between them', () => {
  assert.deepEqual(nodePlacement(mixed), { ...bare, copies: 3 })
  assert.deepEqual(nodePlacement(ort), bare)
})

test("a session's own log id has no effect", () => {
  const named = mixed.map((line) => line.replace('onnxruntime:,', 'onnxruntime:decoder,'))
  assert.deepEqual(nodePlacement(named), nodePlacement(mixed))
})

test('a log in another format gives no numbers', () => {
  /** @param {RegExp} what @param {string} instead */
  const changed = (what, instead) => mixed.map((line) => line.replace(what, instead))
  const strange = {
    empty: [],
    'of no verbose session': mixed.filter((line) => !line.includes('[V:')),
    'without its title': mixed.filter((line) => !line.endsWith('Node placements')),
    'of its title alone': mixed.filter((line) => line.endsWith('Node placements')),
    'of two sessions': [...mixed, ...mixed],
    'of two sessions, each on one provider': [...webgpu, ...webgpu],
    'cut short': mixed.slice(0, -2),
    'with another number': changed(/nodes: 6/, 'nodes: 7'),
    'with a number of another form': changed(/nodes: 6/, 'nodes: six'),
    'of a provider unknown here': changed(/WebGpuExecutionProvider\]/, 'WebNNExecutionProvider]'),
    'with other words': changed(/Node\(s\) placed on/, 'Nodes of'),
    'with copies that were not added': mixed.filter((line) => !line.includes('AddCopyNode')),
    'of all on a provider unknown here': webgpu.map((line) => line.replace('[WebGpu', '[Js')),
  }
  for (const [name, lines] of Object.entries(strange)) assert.equal(nodePlacement(lines), null, name)
})
