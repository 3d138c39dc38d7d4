//= require action_cable
//= require online_manager
//= require_self

document.addEventListener("DOMContentLoaded", () => {
  const list = document.getElementById("users")
  if (!list) return // nobody is logged in

  // The server's answers may overtake each other. The last question is the one that counts.
  let asked = 0
  const refresh = async () => {
    const mine = ++asked
    const answer = await fetch("/list").catch(() => null)
    if (answer && answer.ok && mine === asked) list.innerHTML = await answer.text()
  }

  const consumer = ActionCable.createConsumer()
  OnlineManager.subscribe(consumer)
  consumer.subscriptions.create("UsersChannel", { connected: refresh, received: refresh })

  // Some broadcasts may not reach us, see "Live" in the README.
  setInterval(() => { if (!document.hidden) refresh() }, 2000)
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh() })
})
