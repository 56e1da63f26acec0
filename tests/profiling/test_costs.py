"""Counting what compiled programs do, against XLA's own count and by hand."""

import jax
import jax.numpy as jnp
import pytest

from kiloworlds.profiling import costs, hlo


def counted(function, *arguments):
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled, hlo.parse(compiled.as_text() or "")


def test_without_loops_counts_what_xla_counts():
    compiled, module = counted(lambda a, b: a @ b, jnp.ones((64, 128)), jnp.ones((128, 256)))
    own = costs.total(module)
    theirs = compiled.cost_analysis()
    assert own.flops == theirs["flops"] == 2 * 64 * 128 * 256
    assert own.bytes == pytest.approx(theirs["bytes accessed"], rel=0.01)


def test_a_loop_counts_as_often_as_it_runs():
    def ten_times(matrix):
        return jax.lax.scan(lambda x, _: (x @ matrix, None), jnp.ones((64, 128)), None, length=10)[
            0
        ]

    compiled, module = counted(ten_times, jnp.ones((128, 128)))
    once = 2 * 64 * 128 * 128
    assert costs.total(module).flops == pytest.approx(10 * once, rel=0.01)
    assert compiled.cost_analysis()["flops"] < 2 * once  # which is why the text is read


def test_a_loop_that_does_not_say_how_long_counts_once():
    def some_times(matrix, count):
        return jax.lax.fori_loop(0, count, lambda _, x: x @ matrix, jnp.ones((64, 128)))

    _, module = counted(some_times, jnp.ones((128, 128)), jnp.int32(3))
    assert costs.total(module).flops == pytest.approx(2 * 64 * 128 * 128, rel=0.01)


def test_convolutions():
    images, kernel = jnp.ones((2, 3, 16, 16)), jnp.ones((8, 3, 5, 5))
    compiled, module = counted(lambda x, k: jax.lax.conv(x, k, (1, 1), "VALID"), images, kernel)
    assert costs.total(module).flops == pytest.approx(compiled.cost_analysis()["flops"], rel=0.01)


def test_what_is_updated_in_place_counts_for_the_part_that_changes():
    def put(array, row):
        return jax.lax.dynamic_update_index_in_dim(array, row, 3, 0)

    compiled = jax.jit(put, donate_argnums=0).lower(jnp.ones((1000, 8)), jnp.ones(8)).compile()
    moved = costs.total(hlo.parse(compiled.as_text() or "")).bytes
    assert moved < 1000


def test_devices_are_counted_together():
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("devices")
    product = jax.shard_map(lambda a: a @ a.T, mesh=mesh, in_specs=spec, out_specs=spec)
    _, module = counted(product, jnp.ones((64, 32)))
    assert module.partitions == 2
    assert costs.total(module).flops == pytest.approx(2 * 2 * 32 * 32 * 32, rel=0.01)


def test_says_where_operations_come_from():
    _, module = counted(jnp.sin, jnp.ones(2048))
    sources = [each.instruction.source for each in costs.operations(module)]
    assert any("test_costs.py:" in source or "jax" in source for source in sources)


TEXT = """HloModule jit_f, is_scheduled=true, num_partitions=1

%region (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %double = f32[8]{0} add(%x, %x)
}

%other (y: f32[8]) -> f32[8] {
  %y = f32[8]{0} parameter(0)
  ROOT %copy = f32[8]{0} copy(%y)
}

ENTRY %main (which: s32[], a: f32[8]) -> f32[8] {
  %which = s32[] parameter(0)
  %a = f32[8]{0} parameter(1)
  ROOT %chosen = f32[8]{0} conditional(%which, %a, %a), branch_computations={%region, %other}
}
"""


def test_of_a_conditional_half_of_each_branch_counts():
    found = {each.instruction.name: each for each in costs.operations(hlo.parse(TEXT))}
    assert {name: each.times for name, each in found.items()} == {"double": 0.5, "copy": 0.5}
    assert found["double"].each == costs.Cost(8, 2 * 32 + 32)
    assert found["copy"].each == costs.Cost(0, 2 * 32)
