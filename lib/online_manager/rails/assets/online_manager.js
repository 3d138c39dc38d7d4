// Has whoever has this page open beat, and so be online.
//
//   OnlineManager.subscribe(consumer)                                   // to the gem's own channel
//   OnlineManager.subscribe(consumer, "ChatChannel", { received() {} }) // to one that includes OnlineManager::Channel
//
// A classic script without a build step: `//= require online_manager`, a <script>, or `import "online_manager"`.
(() => {
  "use strict"

  // A function that starts a timer: `tick` after `first` milliseconds, then each `every`. The next call ends that timer,
  // and starts none if it says nothing. Its text is also what the worker runs, so it leans on nothing around it.
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

  // The timers of a hidden page fire once a minute, those of a worker on time. So the time comes from a worker, where
  // the page's Content-Security-Policy allows one: `worker-src blob:`.
  const source = `const set = (${createTimer})(() => postMessage(0)); onmessage = (event) => set(...event.data)`
  let url

  class Ticker {
    constructor(tick) {
      this.setPageTimer = createTimer(tick)
      try {
        url = url || URL.createObjectURL(new Blob([source], { type: "text/javascript" }))
        this.worker = new Worker(url)
        this.worker.onmessage = tick
        this.worker.onerror = () => { // how most browsers say that they allow none
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

  const active = new Set() // all that go on in this page

  // What goes on for one subscription, once the server has told the interval.
  class Heartbeat {
    // @param every [Number] milliseconds. The server tells at each subscription, and when its timeout has changed
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

    // ActionCable's own monitor lets 6 seconds and more go by, and the timeout may be over by then. All clients of a
    // server that restarts come back, but not all at once.
    reconnectSoon() {
      this.connected = false
      if (this.ticker) this.ticker.set(Math.random() * this.every / 2, this.every)
    }

    reconnect() {
      const { consumer } = this.subscription
      const monitor = consumer.connection && consumer.connection.monitor
      // It does not run once `consumer.disconnect()` has been called, of which nobody hears without a connection.
      monitor && monitor.isRunning && !monitor.isRunning() ? this.stop() : consumer.connect()
    }

    stop() {
      this.connected = false
      if (this.ticker) this.ticker.end()
      this.ticker = null
      active.delete(this)
    }
  }

  // As `consumer.subscriptions.create(channel, mixin)`, but the subscription also beats, and reconnects soon.
  const subscribe = (consumer, channel = "OnlineManager::HeartbeatChannel", mixin = {}) => {
    const heartbeat = new Heartbeat()
    const callbacks = {}
    for (const name in mixin) callbacks[name] = mixin[name]

    // Ours first. Theirs is not called if ours answers true.
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
    intercept("disconnected", ({ willAttemptReconnect }) => {
      willAttemptReconnect ? heartbeat.reconnectSoon() : heartbeat.stop()
    })
    intercept("rejected", () => heartbeat.stop())

    const { unsubscribe } = callbacks
    callbacks.unsubscribe = function () {
      heartbeat.stop()
      return (unsubscribe || Object.getPrototypeOf(this).unsubscribe).call(this)
    }

    const subscription = heartbeat.subscription = consumer.subscriptions.create(channel, callbacks)
    // Of several subscriptions here with one identifier the server knows, and tells, only the first. When that one has
    // been ended, the others go on.
    for (const other of active) {
      const { consumer: otherConsumer, identifier } = other.subscription
      if (other.connected && otherConsumer === consumer && identifier === subscription.identifier) heartbeat.start(other.every)
    }
    return subscription
  }

  // The page may have been suspended, and its timers with it.
  const sendAll = () => active.forEach((heartbeat) => heartbeat.sendHeartbeat())
  document.addEventListener("visibilitychange", () => { if (!document.hidden) sendAll() })
  document.addEventListener("resume", sendAll)
  addEventListener("pageshow", (event) => { if (event.persisted) sendAll() })
  addEventListener("online", sendAll)

  globalThis.OnlineManager = { subscribe }
})()
