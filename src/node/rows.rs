//! Rows of the ledger, as the farm hands them out and as the store keeps them.

use super::store::{Batch, LedgerRow};
use crate::farm::event::Token;
use crate::farm::id::{ActorId, BootId, JobId, NodeId};
use crate::farm::ledger::Row;

/// A row as the store keeps it.
fn stored_row(row: Row) -> LedgerRow {
    let key = |actor: ActorId| {
        let mut key = [0; 40];
        key[..32].copy_from_slice(&actor.node.0);
        key[32..].copy_from_slice(&actor.boot.0);
        key
    };
    match row {
        Row::Op { log, actor, seq, bytes } => {
            LedgerRow::Op { log: log.0, actor: key(actor), seq, bytes: bytes.to_vec() }
        }
        Row::Head { log, actor, bytes } => LedgerRow::Head { log: log.0, actor: key(actor), bytes },
        Row::Fork { log, actor, bytes } => LedgerRow::Fork { log: log.0, actor: key(actor), bytes },
        Row::Idle { log, seconds } => LedgerRow::Idle { log: log.0, seconds },
        Row::Retired { log } => LedgerRow::Retired { log: log.0 },
    }
}

/// A row as the ledger takes it.
pub fn row_of(row: LedgerRow) -> Option<Row> {
    let actor = |key: [u8; 40]| {
        let (node, boot) = key.split_at(32);
        Some(ActorId { node: NodeId(node.try_into().ok()?), boot: BootId(boot.try_into().ok()?) })
    };
    match row {
        LedgerRow::Op { log, actor: key, seq, bytes } => {
            Some(Row::Op { log: JobId(log), actor: actor(key)?, seq, bytes: bytes.into() })
        }
        LedgerRow::Head { log, actor: key, bytes } => Some(Row::Head { log: JobId(log), actor: actor(key)?, bytes }),
        LedgerRow::Idle { log, seconds } => Some(Row::Idle { log: JobId(log), seconds }),
        LedgerRow::Retired { log } => Some(Row::Retired { log: JobId(log) }),
        LedgerRow::Fork { log, actor: key, bytes } => Some(Row::Fork { log: JobId(log), actor: actor(key)?, bytes }),
    }
}

/// Batches carry what the ledger hands out.
pub fn batch(token: Option<Token>, rows: Vec<Row>) -> Batch {
    Batch { token: token.map(|token| token.0), rows: rows.into_iter().map(stored_row).collect() }
}
