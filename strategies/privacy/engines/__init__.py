"""The engines of private gradients: clipped sums, their noise and the public divisor.

base.py         what every engine shares: the noise, the grid, the divisor
closed_form.py  linear stacks, without autograd; stack.py is its arithmetic
book_keeping.py every other model, in one backward pass; terms.py and layer_terms.py are its calculus
alone.py        one patient at a time, for any layer; one_by_one.py has its clip, grid and exact sum
opacus.py       the reference that both must equal
in_portions.py  batches that do not fit into memory, and a GPU's precision
groups.py       which rows belong to which patient
separable.py    layers that no engine can train privately
select.py       which engine a model gets
"""
