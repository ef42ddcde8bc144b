//! Records as Arrow columns. The vectors of the core become Arrow buffers
//! without being copied.

use std::sync::Arc;

use arrow_array::types::{Int64Type, UInt32Type};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, Int64Array, PrimitiveArray, RecordBatch, UInt8Array, UInt64Array,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use seatrial_core::record::{OptionalColumn, RecordColumns};

/// The columns of a record, in order.
pub fn schema() -> Arc<Schema> {
    let known = |name: &str, kind| Field::new(name, kind, false);
    let optional = |name: &str, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        known("intended_at_ns", DataType::Int64),
        optional("sent_at_ns", DataType::Int64),
        optional("first_byte_at_ns", DataType::Int64),
        optional("done_at_ns", DataType::Int64),
        known("outcome", DataType::UInt8),
        optional("connection", DataType::UInt32),
        known("request_id", DataType::UInt64),
        known("demand_ns", DataType::Int64),
        optional("server_service_ns", DataType::Int64),
        optional("kernel_sent_at_ns", DataType::Int64),
        optional("kernel_received_at_ns", DataType::Int64),
        known("phase", DataType::UInt8),
    ]))
}

/// One batch out of the records of one thread.
pub fn batch(schema: &Arc<Schema>, records: RecordColumns) -> Result<RecordBatch, ArrowError> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(records.intended_at_ns)),
        optional::<Int64Type>(records.sent_at_ns),
        optional::<Int64Type>(records.first_byte_at_ns),
        optional::<Int64Type>(records.done_at_ns),
        Arc::new(UInt8Array::from(records.outcome)),
        optional::<UInt32Type>(records.connection),
        Arc::new(UInt64Array::from(records.request_id)),
        Arc::new(Int64Array::from(records.demand_ns)),
        optional::<Int64Type>(records.server_service_ns),
        optional::<Int64Type>(records.kernel_sent_at_ns),
        optional::<Int64Type>(records.kernel_received_at_ns),
        Arc::new(UInt8Array::from(records.phase)),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns)
}

fn optional<T: ArrowPrimitiveType>(column: OptionalColumn<T::Native>) -> ArrayRef {
    let length = column.values.len();
    let known = BooleanBuffer::new(Buffer::from_vec(column.known), 0, length);
    let values = ScalarBuffer::from(column.values);
    Arc::new(PrimitiveArray::<T>::new(
        values,
        Some(NullBuffer::new(known)),
    ))
}
