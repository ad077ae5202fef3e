//! QEMU's virt machine: memory, faults, panics, time. The addresses are those of `targets/virt/board.h`.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0, ESR_EL1, FAR_EL1, Readable};
use aarch64_rt::{ExceptionHandlers, InitialPagetable, RegisterStateRef};
use defmt_semihosting as _; // Log frames go to QEMU's stdout.
use static_cell::ConstStaticCell;

/// RAM, of which QEMU has 256 MiB here.
const RAM: usize = 0x4000_0000;
const RAM_END: usize = RAM + (256 << 20);
/// Where the loader puts the model.
const MODEL: usize = 0x4800_0000;
/// And how long it is.
const MODEL_BYTES: usize = 0x401f_fff0;

// ---- Memory ----

/// Normal memory, write-back (attribute 1 of aarch64-rt's MAIR), inner shareable, accessed: a block of 1 GiB.
const NORMAL: usize = 1 << 10 | 3 << 8 | 1 << 2 | 1;

// RAM is all there is: no device is used, so that address 0 is no memory and a null pointer is a fault. Beyond 256 MiB
// the block has nothing behind it. QEMU does not mind; a CPU that speculates may: a board should get smaller blocks.
aarch64_rt::initial_pagetable!({
    let mut gibibytes = [0; 512];
    gibibytes[RAM >> 30] = RAM | NORMAL;
    InitialPagetable(gibibytes)
});

/// The memory that armlet gets.
#[repr(C, align(64))]
struct Memory([u8; 16 << 20]);

static MEMORY: ConstStaticCell<Memory> = ConstStaticCell::new(Memory([0; _]));

/// The memory to work in. It can be taken once.
pub(crate) fn memory() -> &'static mut [u8] {
    &mut MEMORY.take().0
}

/// The model, where the loader put it. Without one there is nothing to do.
pub(crate) fn model() -> &'static [u8] {
    // SAFETY: it is RAM, aligned, and nothing of ours is there; any value is a `usize`.
    let bytes = unsafe { core::ptr::with_exposed_provenance::<usize>(MODEL_BYTES).read_volatile() };
    assert!((1..=RAM_END - MODEL).contains(&bytes), "no model at {MODEL:#x}, or no length at {MODEL_BYTES:#x}");
    // SAFETY: the bytes are RAM, as was just checked; the linker puts nothing there (memory.ld), so nobody writes them.
    unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(MODEL), bytes) }
}

/// How `defmt` keeps others out while it writes a message: there are none.
struct Alone;
critical_section::set_impl!(Alone);

// SAFETY: no other core is ever started, and interrupts, masked since reset, are never unmasked: nothing runs at the
// same time. A fault may come in between, but does not return.
unsafe impl critical_section::Impl for Alone {
    unsafe fn acquire() {}
    unsafe fn release((): ()) {}
}

// ---- Faults and panics ----

struct Faults;
aarch64_rt::exception_handlers!(Faults);

impl ExceptionHandlers for Faults {
    extern "C" fn sync_current(state: RegisterStateRef<'_>) {
        panic!("fault at {:#x}, ESR {:#x}, FAR {:#x}", state.elr, ESR_EL1.get(), FAR_EL1.get())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    // A panic while `defmt` writes a message cannot be logged: that would be another, without end.
    if !PANICKED.swap(true, Ordering::Relaxed) {
        defmt::error!("{}", defmt::Display2Format(info));
    }
    semihosting::process::exit(101)
}

// ---- Time ----

defmt::timestamp!("{=u64:tms}", CNTVCT_EL0.get() * 1000 / CNTFRQ_EL0.get());
