//! Tokens (items) per second of the whole model that `ARMLET_MODEL` names, on every CPU that this process may use.

use armlet::arch::Kernels;
use armlet::engine::{Config, Engine, Plan, Session};
use armlet::gguf::File;
use armlet::host::{MappedFile, Pool, memory};
use armlet::model::Model;
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    if std::env::var_os("ARMLET_MODEL").is_none() {
        println!("nothing to measure: set ARMLET_MODEL to a GGUF file");
        return;
    }
    divan::main();
}

#[divan::bench]
fn prompt_of_256(bencher: Bencher<'_, '_>) {
    with_session(|engine, session, pool| {
        let prompt: Vec<u32> = (0..256).collect();
        bencher.counter(ItemsCount::new(prompt.len())).bench_local(|| {
            session.rewind(0).expect("the start");
            engine.eval(pool, session, &prompt).expect("it fits").len()
        });
    });
}

#[divan::bench(args = [0, 256, 1024])]
fn token_at_depth(bencher: Bencher<'_, '_>, depth: usize) {
    with_session(|engine, session, pool| {
        if depth > 0 {
            engine.eval(pool, session, &vec![7; depth]).expect("it fits");
        }
        bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
            session.rewind(depth as u64).expect("nothing is evicted");
            engine.eval(pool, session, &[7]).expect("it fits").len()
        });
    });
}

#[allow(unsafe_code)]
fn with_session(run: impl FnOnce(&mut Engine<'_>, &mut Session<'_>, &Pool)) {
    let path = std::env::var_os("ARMLET_MODEL").expect("main has looked");
    // SAFETY: a benchmark of a file that is being changed makes no sense, so nobody does that.
    let bytes = unsafe { MappedFile::open(path.as_ref()) }.expect("the model can be mapped");
    let file = File::new_checked(&bytes).expect("it is a GGUF file");
    let mut tables = memory(Model::required_bytes(&file).expect("it can be run")).expect("memory for the tables");
    let model = Model::new(&file, &mut tables).expect("it can be run");
    let plan = Plan::new(&model.hparams, &Config { context: 1280, ..Config::default() }).expect("a context of 1280");
    let mut buffers = memory(plan.engine_bytes()).expect("memory for the engine");
    let mut cache = memory(plan.session_bytes()).expect("memory for a session");
    let mut engine = Engine::new(&model, Kernels::detect(), &plan, &mut buffers).expect("the plan's memory");
    let mut session = Session::new(&model, &plan, &mut cache).expect("the plan's memory");
    run(&mut engine, &mut session, &Pool::new(Pool::cpus()));
}
