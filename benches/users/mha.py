"""Writes a GGUF model whose key and value heads are repeated, so that each query head has its own: the same answers, by
multi-head attention.

    python3 mha.py grouped.gguf multi_head.gguf
"""
import sys

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter

source, to = sys.argv[1:]
reader = GGUFReader(source)


def value(field):
    return field.contents()


arch = value(reader.fields["general.architecture"])
heads = value(reader.fields[f"{arch}.attention.head_count"])
kv_heads = value(reader.fields[f"{arch}.attention.head_count_kv"])
writer = GGUFWriter(to, arch)
for name, field in reader.fields.items():
    if name.startswith("GGUF.") or name == "general.architecture":
        continue
    kind = field.types[0]
    given = heads if name == f"{arch}.attention.head_count_kv" else value(field)
    sub = field.types[-1] if kind == GGUFValueType.ARRAY else None
    writer.add_key_value(name, given, kind, sub)
group = heads // kv_heads
for tensor in reader.tensors:
    data = tensor.data
    if any(part in tensor.name for part in ["attn_k.", "attn_v."]):
        # (kv_heads, rows of a head, bytes of a row), each head as often as it has query heads.
        data = np.repeat(data.reshape(kv_heads, -1, *data.shape[1:]), group, axis=0).reshape(-1, *data.shape[1:])
    writer.add_tensor(tensor.name, np.ascontiguousarray(data), raw_dtype=tensor.tensor_type)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
