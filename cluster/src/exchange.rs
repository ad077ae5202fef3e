//! What one board sends and receives in one exchange, until all of it is there.

use armlet::boards::CommError;
use mpi::Tag;
use mpi::datatype::Equivalence;
use mpi::point_to_point::{Destination, Source};
use mpi::request::{LocalScope, Request};
use mpi::topology::{Communicator, Process, SimpleCommunicator};
use mpi::traits::MatchedReceiveVec;

/// What boards exchange.
const DATA: Tag = 0;

/// A message under way, to or from a board; `None` when it is through.
type Moving<'a, 's> = (usize, Option<Request<'a, [u8], &'s LocalScope<'a>>>);

/// What a board has to send, and where it wants what it receives: boards and bytes.
#[derive(Default)]
pub(crate) struct Messages<'a> {
    pub(crate) to: Vec<(usize, &'a [u8])>,
    pub(crate) from: Vec<(usize, &'a mut [u8])>,
}

/// Messages on their way.
///
/// A message is received only once it has shown its length, so one of another length is an error and not the end of the
/// job. That takes no more time: a short one is there when it shows, and a long one comes when it is asked for.
pub(crate) struct Exchange<'a, 's> {
    world: &'s SimpleCommunicator,
    scope: &'s LocalScope<'a>,
    leaving: Vec<Moving<'a, 's>>,
    /// Of which nothing is seen yet.
    awaited: Vec<(usize, &'a mut [u8])>,
    arriving: Vec<Moving<'a, 's>>,
    mismatch: Option<CommError>,
}

impl<'a, 's> Exchange<'a, 's> {
    pub(crate) fn new(world: &'s SimpleCommunicator, scope: &'s LocalScope<'a>, messages: Messages<'a>) -> Self {
        let mut new =
            Exchange { world, scope, leaving: vec![], awaited: messages.from, arriving: vec![], mismatch: None };
        for (rank, data) in messages.to {
            let request = new.board(rank).immediate_send_with_tag(scope, data, DATA);
            new.leaving.push((rank, Some(request)));
        }
        new
    }

    fn board(&self, rank: usize) -> Process<'s> {
        // Ranks are below the communicator's size, which is a C int.
        self.world.process_at_rank(rank as mpi::Rank)
    }

    /// Goes on with all that can.
    pub(crate) fn poll(&mut self) {
        for (_, request) in self.leaving.iter_mut().chain(&mut self.arriving) {
            *request = request.take().and_then(|request| request.test().err());
        }
        let mut i = 0;
        while let Some(&(rank, _)) = self.awaited.get(i) {
            match self.board(rank).immediate_matched_probe_with_tag(DATA) {
                None => i += 1,
                Some(shown) => {
                    let (_, data) = self.awaited.swap_remove(i);
                    let got = shown.1.count(u8::equivalent_datatype()) as usize;
                    if got == data.len() {
                        let request = shown.0.immediate_matched_receive_into(self.scope, data);
                        self.arriving.push((rank, Some(request)));
                    } else {
                        // Out of the way, so that all other messages of this exchange get through.
                        drop(shown.matched_receive_vec::<u8>());
                        self.mismatch.get_or_insert(CommError::Mismatch { rank, got, expected: data.len() });
                    }
                }
            }
        }
    }

    /// A board that is waited for.
    pub(crate) fn waits_for(&self) -> Option<usize> {
        let awaited = self.awaited.iter().map(|(rank, _)| *rank);
        let moving = self.arriving.iter().chain(&self.leaving);
        awaited.chain(moving.filter(|(_, request)| request.is_some()).map(|(rank, _)| *rank)).next()
    }

    /// Whether nothing moves: all that is left to do is to wait for a message that is not yet seen.
    pub(crate) fn is_idle(&self) -> bool {
        self.arriving.iter().chain(&self.leaving).all(|(_, request)| request.is_none())
    }

    /// What went wrong, when all messages are through.
    pub(crate) fn result(&self) -> Result<(), CommError> {
        self.mismatch.map_or(Ok(()), Err)
    }
}
