// Signing in: the token behind # of a mailed link, and the wallet of this browser (EIP-4361).
"use strict"
document.addEventListener("DOMContentLoaded", () => {
  const mailed = new URLSearchParams(location.hash.slice(1)).get("token")
  if (mailed) {
    history.replaceState(null, "", location.pathname + location.search)
    document.getElementById("mailed-token").value = mailed
    document.getElementById("token-form").requestSubmit()
    return
  }
  const form = document.getElementById("wallet-form"), told = document.getElementById("wallet-told")
  const button = document.getElementById("wallet-button")
  if (!window.ethereum) { told.textContent = "This browser has no wallet."; return }
  button.disabled = false
  told.textContent = ""
  button.addEventListener("click", async () => {
    try {
      const [address] = await window.ethereum.request({ method: "eth_requestAccounts" })
      const { nonce } = await (await fetch("/v1/sign-in/wallet/nonce", { method: "POST" })).json()
      const chain = form.dataset.chain === "0" ? parseInt(await window.ethereum.request({ method: "eth_chainId" }), 16) : form.dataset.chain
      const message = `${location.host} wants you to sign in with your Ethereum account:\n${address}\n\n\n` +
        `URI: ${location.origin}/\nVersion: 1\nChain ID: ${chain}\nNonce: ${nonce}\nIssued At: ${new Date().toISOString()}`
      form.elements.message.value = message
      form.elements.signature.value = await window.ethereum.request({ method: "personal_sign", params: [message, address] })
      form.submit()
    } catch (error) { told.textContent = "The wallet did not sign: " + (error.message || error) }
  })
})
