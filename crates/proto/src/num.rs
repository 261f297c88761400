//! Conversions of counts to the signed integers of the API. A count beyond the range becomes the largest value.

/// Converts a count to an `int32`.
pub fn to_i32(count: impl TryInto<i32>) -> i32 {
    count.try_into().unwrap_or(i32::MAX)
}

/// Converts a count to an `int64`.
pub fn to_i64(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
