//! What the two native classes have in common: [`Handle`] has the state, [`NativeObject`] the Ruby methods.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use magnus::block::Proc;
use magnus::typed_data::Obj;
use magnus::value::Opaque;
use magnus::{Error, Ruby, TypedData, Value, gc};
use online_manager_tracker::Nanos;
use online_manager_tracker::invariant::violated;

use crate::callback_target::CallbackTarget;
use crate::heartbeat;
use crate::pipe::SharedPipe;
use crate::process_local::{Inherited, ProcessLocal, ProcessValue};

/// The state of a native object. Each process has a `T` of its own: a tracker, or a member of a store.
pub(crate) struct Handle<T: Inherited> {
    pub(crate) target: CallbackTarget,
    /// The proc that `setup` gets. Set by [`NativeObject::wrap`].
    heartbeat: OnceLock<Opaque<Proc>>,
    locals: ProcessLocal<T>,
    /// Forked children are stopped too.
    is_stopped: AtomicBool,
}

impl<T: Inherited> Handle<T> {
    pub(crate) fn new(target: Value) -> Handle<T> {
        Handle {
            target: CallbackTarget::new(target),
            heartbeat: OnceLock::new(),
            locals: ProcessLocal::default(),
            is_stopped: AtomicBool::new(false),
        }
    }

    /// Marks the target and the heartbeat proc, for the garbage collector.
    pub(crate) fn mark(&self, marker: &gc::Marker) {
        self.target.mark(marker);
        if let Some(heartbeat) = self.heartbeat.get() {
            marker.mark(*heartbeat);
        }
    }

    /// Returns this process' value, if it has been created.
    #[inline]
    pub(crate) fn current(&self) -> Option<&ProcessValue<T>> {
        self.locals.current()
    }

    /// Returns the value that was created last, which may be an ancestor's.
    pub(crate) fn latest(&self) -> Option<&ProcessValue<T>> {
        self.locals.latest()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

/// A native class. The functions that take `this` are methods of the Ruby class.
pub(crate) trait NativeObject: TypedData {
    /// The tracker or member that each process has one of.
    type Local: Inherited;

    fn handle(&self) -> &Handle<Self::Local>;

    /// Records a heartbeat of `id`. `timeout` is in nanoseconds; without one, the config's timeout applies. Returns
    /// false after a stop.
    fn record_heartbeat(&self, ruby: &Ruby, id: Value, timeout: Option<Nanos>) -> Result<bool, Error>;

    /// Creates this process' tracker or member, which raises `pipe` when `deliver` has something to do.
    fn create(&self, ruby: &Ruby, pipe: SharedPipe) -> io::Result<Self::Local>;

    /// Makes the pipe readable until the next `deliver`.
    fn wake_local(local: &Self::Local);

    /// Stops this process' tracker or member.
    fn stop_local(&self, ruby: &Ruby, local: &Self::Local);

    /// Runs before the target's `ready`, at this process' first heartbeat. An error keeps the target from becoming
    /// ready.
    fn prepare(&self, _ruby: &Ruby) -> Result<(), Error> {
        Ok(())
    }

    /// Makes `self` a Ruby object.
    fn wrap(self, ruby: &Ruby) -> Result<Obj<Self>, Error>
    where
        Self: Sized,
    {
        let object = ruby.obj_wrap(self);
        let heartbeat = heartbeat::new(object)?;
        // Set here and nowhere else: nobody has seen the object yet.
        if object.handle().heartbeat.set(heartbeat.into()).is_err() {
            violated("a new object has no heartbeat proc yet");
        }
        Ok(object)
    }

    /// Returns whether heartbeats are recorded: false after a stop. Each heartbeat calls it first; the first one in
    /// this process has the target start its reactor.
    #[inline]
    fn ensure_ready(&self, ruby: &Ruby) -> Result<bool, Error> {
        Ok(self.handle().target.is_ready() || self.become_ready(ruby)?)
    }

    /// Has the target start its reactor. Returns false after a stop.
    #[cold]
    fn become_ready(&self, ruby: &Ruby) -> Result<bool, Error> {
        if self.handle().is_stopped() {
            return Ok(false);
        }
        self.prepare(ruby)?;
        self.handle().target.become_ready(ruby, || self.local(ruby).map(|_| ()))?;
        Ok(true)
    }

    /// Returns this process' tracker or member; creates it if need be. Fails when the operating system has no pipe or
    /// thread to give.
    fn local(&self, ruby: &Ruby) -> Result<&ProcessValue<Self::Local>, Error> {
        let local = self.handle().locals.get_or_init(ruby, |pipe| self.create(ruby, pipe))?;
        if self.handle().is_stopped() {
            // The stop came before there was anything to stop.
            self.stop_local(ruby, local);
        }
        Ok(local)
    }

    /// `heartbeat -> Proc`: always the same proc. It takes an id and returns what `seen` does.
    fn heartbeat(ruby: &Ruby, this: &Self) -> Option<Proc> {
        this.handle().heartbeat.get().map(|heartbeat| ruby.get_inner(*heartbeat))
    }

    /// `seen(id) -> true`, or false after a stop
    fn seen(ruby: &Ruby, this: &Self, id: Value) -> Result<bool, Error> {
        this.record_heartbeat(ruby, id, None)
    }

    /// `seen_for(id, nanoseconds) -> true`, or false after a stop
    fn seen_for(ruby: &Ruby, this: &Self, id: Value, timeout: Nanos) -> Result<bool, Error> {
        this.record_heartbeat(ruby, id, Some(timeout))
    }

    /// `pipe -> Integer`: a file descriptor, readable while `deliver` has something to do. The caller closes it.
    fn pipe(ruby: &Ruby, this: &Self) -> Result<i32, Error> {
        this.local(ruby)?.duplicate_reader(ruby)
    }

    /// `wake`: makes the pipe readable until the next `deliver`.
    fn wake(this: &Self) {
        if let Some(local) = this.handle().current() {
            Self::wake_local(local);
        }
    }

    /// `stop`: bars new users, in this process and in those forked from it, and stops this process' tracker or member
    fn stop(ruby: &Ruby, this: &Self) {
        let handle = this.handle();
        handle.is_stopped.store(true, Ordering::Relaxed);
        handle.target.reset_ready();
        if let Some(local) = handle.current() {
            this.stop_local(ruby, local);
        }
    }
}
