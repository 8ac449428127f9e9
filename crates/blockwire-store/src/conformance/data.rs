//! One operation at a time: the data are where they were put and nowhere else.
#![allow(unsafe_code)]

use super::{Case, Context, Random, Skip, Verdict, applicable, ensure, put, read_back, same};
use crate::{IoVec, IoVecs, Op, Store, block_on};

pub(super) const CASES: &[Case] = &[
    ("shape: geometry, capabilities, mapping and identity agree", shape),
    ("write: read back at edges and odd ranges, neighbours untouched", edges),
    ("write: scattered memory on both sides", scattered),
    ("write: nothing at all is allowed up to the end", empty),
    ("write: FUA survives closing and opening", durable),
    ("zero: reads as zeros, with and without unmapping", zero),
    ("punch: reads as zeros", punch),
    ("copy: disjoint and overlapping both ways", copy),
    ("flush: works, also with nothing to flush", flush),
    ("resize: grows with zeros, shrinks, forgets what was cut off", resize),
    ("mapping: shows what was written and takes part in the rest", mapping),
];

fn shape(context: &Context<'_>) -> Verdict {
    let store = (context.make)();
    let (geometry, capabilities) = (store.geometry(), store.capabilities());
    ensure!(geometry.size >= 2 << 20, "the suite needs 2 MiB, the store has {}", geometry.size);
    ensure!(geometry.size % 512 == 0, "size {} is no multiple of 512", geometry.size);
    ensure!(geometry.physical_block.is_power_of_two(), "physical block of {}", geometry.physical_block);
    let mapped = store.mapping().map(|mapping| mapping.len as u64);
    let wanted = capabilities.stable_memory.then_some(geometry.size);
    ensure!(mapped == wanted, "the mapping has {mapped:?} bytes, not {wanted:?}");
    ensure!(store.identity() == store.identity(), "the identity changes");
    Ok(None)
}

fn edges(context: &Context<'_>) -> Verdict {
    let store = applicable!(context.retaining());
    let size = store.geometry().size;
    let mut random = Random::new(context.expect.seed);
    let ranges = [
        (0, 1),
        (0, 512),
        (511, 2),
        (512, 4096),
        (4095, 4098),
        (12_295, 70_001),
        (65_536, 262_144),
        (1 << 20, 1 << 20),
        (size - 1, 1),
        (size - 512, 512),
        (size - 70_000, 70_000),
    ];
    for (offset, len) in ranges {
        // What lies right before and behind, as far as the store goes.
        let (before, behind) = (offset.min(600), (size - offset - len).min(600));
        let (start, all) = (offset - before, (before + len + behind) as usize);
        let mut wanted = random.bytes(all);
        put(&*store, start, &wanted)?;
        let data = random.bytes(len as usize);
        put(&*store, offset, &data)?;
        wanted[before as usize..(before + len) as usize].copy_from_slice(&data);
        same(&read_back(&*store, start, all)?, &wanted, start, &format!("after a write of {len} at {offset}"))?;
    }
    Ok(None)
}

/// Cuts a buffer into pieces of these lengths over and over.
fn cut(buffer: &mut [u8], lengths: &[usize]) -> IoVecs {
    let mut list = IoVecs::new();
    let mut rest = buffer;
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, tail) = rest.split_at_mut((*length).min(rest.len()));
        // SAFETY: the cases below wait for every operation while they keep the buffer and leave it alone.
        list.push(unsafe { IoVec::new(piece.as_mut_ptr(), piece.len()) });
        rest = tail;
    }
    list
}

fn scattered(context: &Context<'_>) -> Verdict {
    let store = applicable!(context.retaining());
    let mut random = Random::new(context.expect.seed);
    // The last shape has more pieces than one system call takes.
    for (offset, len, pieces) in
        [(3u64, 9_000usize, &[1usize, 700, 13][..]), (4096, 65_536, &[4096]), (8191, 40_000, &[7, 9, 11])]
    {
        let data = random.bytes(len);
        let mut source = data.clone();
        let src = cut(&mut source, pieces);
        block_on(&*store, Op::Write { offset, src, fua: false }).map_err(|error| error.to_string())?;
        let mut back = vec![0; len];
        let dst = cut(&mut back, &[5000, 1]);
        block_on(&*store, Op::Read { offset, dst }).map_err(|error| error.to_string())?;
        same(&back, &data, offset, "scattered write, scattered read")?;
        same(&read_back(&*store, offset, len)?, &data, offset, "scattered write, plain read")?;
    }
    Ok(None)
}

fn empty(context: &Context<'_>) -> Verdict {
    let store = (context.make)();
    let size = store.geometry().size;
    let read_only = store.capabilities().read_only;
    for offset in [0, 17, size] {
        let mut ops = vec![Op::Read { offset, dst: IoVecs::new() }];
        if !read_only {
            ops.push(Op::Write { offset, src: IoVecs::new(), fua: true });
            ops.push(Op::Zero { offset, len: 0, may_unmap: true, fua: false });
            ops.push(Op::Copy { from: offset, to: 0, len: 0 });
        }
        for op in ops {
            let shown = format!("{op:?}");
            block_on(&*store, op).map_err(|error| format!("{shown}: {error}"))?;
        }
    }
    Ok(None)
}

fn durable(context: &Context<'_>) -> Verdict {
    let Some(reopen) = context.expect.reopen else {
        return Ok(Some(Skip("the store lives no longer than it is open")));
    };
    let store = applicable!(context.retaining());
    let mut random = Random::new(context.expect.seed);
    let (first, second) = (random.bytes(10_000), random.bytes(5000));
    crate::write(&*store, 777, &first, true).map_err(|error| error.to_string())?;
    put(&*store, 500_000, &second)?;
    block_on(&*store, Op::Zero { offset: 1000, len: 100, may_unmap: false, fua: true }).map_err(|e| e.to_string())?;
    block_on(&*store, Op::Flush).map_err(|error| error.to_string())?;
    drop(store);
    let store = reopen();
    let mut wanted = first;
    wanted[223..323].fill(0);
    same(&read_back(&*store, 777, wanted.len())?, &wanted, 777, "after opening again")?;
    same(&read_back(&*store, 500_000, second.len())?, &second, 500_000, "after opening again")?;
    Ok(None)
}

/// Fills the first 4 MiB (or what there is), runs `make_op` over ranges and expects zeros there and nothing else changed.
fn becomes_zero(store: &dyn Store, random: &mut Random, make_op: &dyn Fn(u64, u64) -> Op) -> Result<(), String> {
    let room = store.geometry().size.min(4 << 20);
    let mut wanted = random.bytes(room as usize);
    put(store, 0, &wanted)?;
    let ranges = [
        (0, 4096),
        (100, 50),
        (5000, 20_000),
        (65_536, 131_072),
        (300_001, 700_003),
        (room - 4096, 4096),
        (room - 7, 7),
        // Longer than anything a store does on its caller's thread.
        (1 << 20, room - (1 << 20)),
    ];
    for (offset, len) in ranges {
        block_on(store, make_op(offset, len)).map_err(|error| format!("{len} at {offset}: {error}"))?;
        wanted[offset as usize..(offset + len) as usize].fill(0);
        let what = format!("after zeroing {len} at {offset}");
        same(&read_back(store, 0, room as usize)?, &wanted, 0, &what)?;
    }
    let data = random.bytes(8192);
    put(store, 66_000, &data)?;
    same(&read_back(store, 66_000, 8192)?, &data, 66_000, "written into zeros")
}

fn zero(context: &Context<'_>) -> Verdict {
    let store = applicable!(context.retaining());
    let mut random = Random::new(context.expect.seed);
    for (may_unmap, fua) in [(false, false), (true, false), (false, true), (true, true)] {
        becomes_zero(&*store, &mut random, &|offset, len| Op::Zero { offset, len, may_unmap, fua })?;
    }
    Ok(None)
}

fn punch(context: &Context<'_>) -> Verdict {
    let store = applicable!(context.retaining());
    if !store.capabilities().can_punch {
        return Ok(Some(Skip("the store cannot free space")));
    }
    let mut random = Random::new(context.expect.seed);
    becomes_zero(&*store, &mut random, &|offset, len| Op::Punch { offset, len })?;
    Ok(None)
}

fn copy(context: &Context<'_>) -> Verdict {
    let store = applicable!(context.retaining());
    let mut random = Random::new(context.expect.seed);
    let room = 2 << 20;
    let mut wanted = random.bytes(room);
    put(&*store, 0, &wanted)?;
    let copies = [
        (0, 1 << 20, 4096),
        (513, 70_001, 65_000),
        (4096, 4096, 8192),
        (0, 4096, 600_000),
        (4096, 0, 600_000),
        (1000, 1001, 300_001),
        (1001, 1000, 300_001),
        (0, 700_000, 1_000_000),
    ];
    for (from, to, len) in copies {
        let op = Op::Copy { from: from as u64, to: to as u64, len: len as u64 };
        block_on(&*store, op).map_err(|error| format!("{len} from {from} to {to}: {error}"))?;
        wanted.copy_within(from..from + len, to);
        same(&read_back(&*store, 0, room)?, &wanted, 0, &format!("after copying {len} from {from} to {to}"))?;
    }
    Ok(None)
}

fn flush(context: &Context<'_>) -> Verdict {
    let store = (context.make)();
    block_on(&*store, Op::Flush).map_err(|error| error.to_string())?;
    if !store.capabilities().read_only {
        put(&*store, 0, &[1; 4096])?;
        block_on(&*store, Op::Flush).map_err(|error| error.to_string())?;
        block_on(&*store, Op::Flush).map_err(|error| error.to_string())?;
    }
    Ok(None)
}

fn resize(context: &Context<'_>) -> Verdict {
    let store = applicable!(context.writable());
    if !store.capabilities().can_resize {
        return Ok(Some(Skip("the store cannot be resized")));
    }
    let size = store.geometry().size;
    let set = |to: u64| -> Result<(), String> {
        block_on(&*store, Op::Resize { size: to }).map_err(|error| format!("resize to {to}: {error}"))?;
        let seen = store.geometry().size;
        ensure!(seen == to, "the size is {seen} after a resize to {to}");
        Ok(())
    };
    put(&*store, size - 4096, &[7; 4096])?;
    set(size + 8192)?;
    let wanted = if context.expect.retains { 7 } else { 0 };
    same(&read_back(&*store, size - 4096, 4096)?, &[wanted; 4096], size - 4096, "the old end after growing")?;
    same(&read_back(&*store, size, 8192)?, &[0; 8192], size, "the new end after growing")?;
    put(&*store, size, &[9; 8192])?;
    set(size - 2048)?;
    let cut_off = crate::read(&*store, size - 2048, &mut [0; 512]);
    ensure!(cut_off.is_err(), "what was cut off can be read");
    set(size + 8192)?;
    let at = size - 2048;
    same(&read_back(&*store, at, 10_240)?, &[0; 10_240], at, "what was cut off, after growing again")?;
    set(size)?;
    Ok(None)
}

fn mapping(context: &Context<'_>) -> Verdict {
    let store = (context.make)();
    let Some(mapping) = store.mapping() else {
        return Ok(Some(Skip("the store has no memory to show")));
    };
    let look = |offset: usize, len: usize| {
        // SAFETY: inside the mapping, the store is open, and no operation is in flight.
        unsafe { std::slice::from_raw_parts(mapping.base.as_ptr().add(offset), len) }.to_vec()
    };
    let end = mapping.len - 5000;
    if !store.capabilities().read_only {
        let data = Random::new(context.expect.seed).bytes(5000);
        put(&*store, 3, &data)?;
        put(&*store, end as u64, &data)?;
        same(&look(3, 5000), &data, 3, "in the mapping")?;
        block_on(&*store, Op::Zero { offset: 100, len: 4500, may_unmap: true, fua: false })
            .map_err(|e| e.to_string())?;
    }
    same(&read_back(&*store, 3, 5000)?, &look(3, 5000), 3, "reading differs from the mapping")?;
    same(&read_back(&*store, end as u64, 5000)?, &look(end, 5000), end as u64, "reading differs from the mapping")?;
    Ok(None)
}
