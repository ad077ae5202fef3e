//! Prints the weight formats: name, GGUF type, weights and bytes of a block, bits a weight, and the type of packed matrices.

use armlet::quant::FORMATS;

fn main() {
    for format in FORMATS {
        let bits = f64::from(format.block_bytes) * 8.0 / f64::from(format.block_len);
        let packed = format.packed.unwrap_or("-");
        println!("{} {} {} {} {bits:.4} {packed}", format.name, format.gguf_id, format.block_len, format.block_bytes);
    }
}
