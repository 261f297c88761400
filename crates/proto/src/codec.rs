//! Codec of the generated clients and servers: that of the library, with smaller buffers. Knows no message.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Bytes that each call allocates when it begins, once for each direction. Buffers grow with the messages. The library's 8 KiB are a
/// third of the memory of a worker that is idle, whose messages have some dozen bytes.
const BUFFER_SIZE: usize = 1 << 10;
/// Encoded bytes after which a stream hands over what it has gathered: the library's default.
const YIELD_THRESHOLD: usize = 32 << 10;

/// Codec with small buffers, for the many calls that are open and idle.
#[derive(Debug, Clone)]
pub struct SmallBuffers<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER_SIZE, YIELD_THRESHOLD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER_SIZE, YIELD_THRESHOLD))
    }
}
