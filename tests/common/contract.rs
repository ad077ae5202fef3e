//! What boards may rely on when they exchange bytes, whatever carries them. All boards run each of these at once.

use armlet::boards::{Comm, CommError};

/// Byte `i` of what board `rank` has to give.
pub fn byte(rank: usize, i: usize) -> u8 {
    (rank * 37 + i * 11 + 1) as u8
}

/// Gathers parts of 0, 3, 6 … bytes, each of them different.
pub fn gather(board: &dyn Comm) -> Result<Vec<u8>, CommError> {
    let ends: Vec<usize> = (0..board.size()).map(|i| (0..=i).map(|i| 3 * i).sum()).collect();
    let mut all = vec![0; ends[board.size() - 1]];
    let own = ends[board.rank()] - 3 * board.rank()..ends[board.rank()];
    all[own].iter_mut().enumerate().for_each(|(i, x)| *x = byte(board.rank(), i));
    board.all_gather(&mut all, &ends).map(|()| all)
}

/// Parts of different lengths, one of them empty, are gathered in order of boards; any board is heard by all.
pub fn everything_is_heard_everywhere(board: &dyn Comm) {
    let (rank, size) = (board.rank(), board.size());
    let expected: Vec<u8> = (0..size).flat_map(|rank| (0..3 * rank).map(move |i| byte(rank, i))).collect();
    assert_eq!(gather(board), Ok(expected));
    for root in 0..size {
        let mut data = [byte(rank, 5), byte(rank, 6)];
        board.broadcast(root, &mut data).unwrap();
        assert_eq!(data, [byte(root, 5), byte(root, 6)], "of board {root}");
        data = [byte(rank, 7), byte(rank, 8)];
        board.listen(root, &mut data).unwrap();
        assert_eq!(data, [byte(root, 7), byte(root, 8)], "of board {root}");
    }
}

/// Pieces of `bytes` go round the ring, each board works on one while the next one comes, and has worked on all in the end.
pub fn pieces_go_round(board: &dyn Comm, bytes: usize) {
    let (rank, size) = (board.rank(), board.size());
    let (left, right) = ((rank + size - 1) % size, (rank + 1) % size);
    let mut piece: Vec<u8> = (0..bytes).map(|i| byte(rank, i)).collect();
    for step in 1..size {
        let (mut next, mut calls) = (vec![0; bytes], 0);
        let mut work = |poll: &dyn Fn()| {
            poll();
            calls += 1;
        };
        board.shift(Some((right, &piece[..])), Some((left, &mut next[..])), &mut work).unwrap();
        assert_eq!(calls, 1);
        piece = next;
        let from = (rank + size - step) % size;
        assert!(piece.iter().enumerate().all(|(i, x)| *x == byte(from, i)), "step {step}: not of board {from}");
    }
}

/// A message to one board, which the other side expects to be of another length.
pub fn another_length(board: &dyn Comm) {
    let heard = board.broadcast(0, &mut vec![7; 4 + board.rank()]);
    let expected = match board.rank() {
        0 => Ok(()),
        rank => Err(CommError::Mismatch { rank: 0, got: 4, expected: 4 + rank }),
    };
    assert_eq!(heard, expected);
}
