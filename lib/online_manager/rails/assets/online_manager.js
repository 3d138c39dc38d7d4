// Sends heartbeats over ActionCable while this page is open, which keeps its user online. `consumer` is Rails' or AnyCable's.
//
//   OnlineManager.subscribe(consumer)                                   // to the gem's own channel
//   OnlineManager.subscribe(consumer, "ChatChannel", { received() {} }) // to one that includes OnlineManager::Channel
//
// A classic script without a build step: `//= require online_manager`, a <script>, or `import "online_manager"`.
(() => {
  "use strict"

  // Returns a function (first, every) that starts a timer: it calls `tick` after `first` milliseconds, and then each
  // `every` milliseconds. A call ends the timer of the call before; without arguments it starts none. The worker
  // evaluates the text of `createTimer`, which therefore uses no variable from outside.
  const createTimer = (tick) => {
    let timer
    return (first, every) => {
      clearTimeout(timer)
      const next = () => {
        timer = setTimeout(next, every)
        tick()
      }
      if (every) timer = setTimeout(next, first)
    }
  }

  // A browser slows the timers of a hidden page down to one a minute, but not those of a worker. So the timer runs in a
  // worker, where the page's Content-Security-Policy allows one: `worker-src blob:`.
  const source = `const set = (${createTimer})(() => postMessage(0)); onmessage = (event) => set(...event.data)`
  let url

  // A timer in a worker; in the page where there can be no worker.
  class Ticker {
    constructor(tick) {
      this.setPageTimer = createTimer(tick)
      try {
        url = url || URL.createObjectURL(new Blob([source], { type: "text/javascript" }))
        this.worker = new Worker(url)
        this.worker.onmessage = tick
        this.worker.onerror = () => { // in most browsers, if the policy forbids the worker
          this.worker = null
          this.set(...this.times)
        }
      } catch (error) {
        this.worker = null
      }
    }

    set(...times) {
      this.times = times
      this.worker ? this.worker.postMessage(times) : this.setPageTimer(...times)
    }

    end() {
      if (this.worker) this.worker.terminate()
      this.worker = null
      this.set()
    }
  }

  const active = new Set() // the heartbeats of this page that have been started and not stopped

  // The heartbeats of one subscription.
  class Heartbeat {
    constructor(consumer) {
      this.consumer = consumer
    }

    // Starts sending. Called when the server transmits the interval: after each subscription, and when its timeout has
    // changed.
    //
    // @param every [Number] milliseconds between two heartbeats
    start(every) {
      this.every = every
      this.connected = true
      this.ticker = this.ticker || new Ticker(() => this.sendHeartbeat())
      this.ticker.set(every, every)
      active.add(this)
    }

    sendHeartbeat() {
      this.connected ? this.subscription.perform("heartbeat") : this.reconnect()
    }

    // Reconnects within half an interval. ActionCable's own monitor waits for 6 seconds and more, when the timeout may
    // be over. The delay is random, so that the clients of a restarted server do not reconnect all at once.
    reconnectSoon() {
      this.connected = false
      if (this.ticker) this.ticker.set(Math.random() * this.every / 2, this.every)
    }

    reconnect() {
      const { consumer } = this
      const monitor = consumer.connection && consumer.connection.monitor
      // The monitor does not run once `consumer.disconnect()` has been called; without a connection, ActionCable does
      // not call `disconnected` then.
      if (monitor && monitor.isRunning && !monitor.isRunning()) return this.stop()
      // AnyCable's consumer returns a promise. If the server is away, the next interval tries again.
      Promise.resolve(consumer.connect()).catch(() => {})
    }

    stop() {
      this.connected = false
      if (this.ticker) this.ticker.end()
      this.ticker = null
      active.delete(this)
    }
  }

  // Subscribes as `consumer.subscriptions.create(channel, mixin)` does; the subscription also sends heartbeats, and
  // reconnects sooner.
  const subscribe = (consumer, channel = "OnlineManager::HeartbeatChannel", mixin = {}) => {
    const heartbeat = new Heartbeat(consumer)
    const callbacks = {}
    for (const name in mixin) callbacks[name] = mixin[name]

    // Calls `handler` before the application's callback, which is skipped if `handler` returns something true.
    const intercept = (name, handler) => {
      const original = callbacks[name]
      callbacks[name] = function (...args) {
        heartbeat.subscription = this
        if (!handler(...args) && typeof original === "function") return original.apply(this, args)
      }
    }
    intercept("connected", () => {
      heartbeat.connected = true
      heartbeat.sendHeartbeat()
    })
    intercept("received", (data) => {
      const settings = data && data.online_manager
      if (settings) heartbeat.start(settings.heartbeat_every * 1000)
      return settings
    })
    intercept("disconnected", ({ willAttemptReconnect, allowReconnect } = {}) => {
      // Rails says the former. AnyCable says the latter, also once its consumer's `disconnect()` has been called.
      const isClosed = consumer.cable && consumer.cable.state === "closed"
      willAttemptReconnect || (allowReconnect && !isClosed) ? heartbeat.reconnectSoon() : heartbeat.stop()
    })
    intercept("rejected", () => heartbeat.stop())

    const { unsubscribe } = callbacks
    callbacks.unsubscribe = function () {
      heartbeat.stop()
      return (unsubscribe || Object.getPrototypeOf(this).unsubscribe).call(this)
    }

    const subscription = heartbeat.subscription = consumer.subscriptions.create(channel, callbacks)
    // Of several subscriptions in the page with one identifier the server knows only the first, and transmits the
    // interval only to that. The others start with its interval, and go on when it ends.
    for (const other of active) {
      const isSame = other.consumer === consumer && other.subscription.identifier === subscription.identifier
      if (other.connected && isSame) heartbeat.start(other.every)
    }
    return subscription
  }

  // Sends at once when the page comes back: it may have been suspended, and its timers with it.
  const sendAll = () => active.forEach((heartbeat) => heartbeat.sendHeartbeat())
  document.addEventListener("visibilitychange", () => { if (!document.hidden) sendAll() })
  document.addEventListener("resume", sendAll)
  addEventListener("pageshow", (event) => { if (event.persisted) sendAll() })
  addEventListener("online", sendAll)

  globalThis.OnlineManager = { subscribe }
})()
