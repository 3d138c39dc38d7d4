# frozen_string_literal: true

Rails.application.routes.draw do
  root "users#index"
  get "list", to: "users#list"
  get "online", to: "users#online", defaults: { format: :json }

  post "session", to: "sessions#create"
  delete "session", to: "sessions#destroy"

  post "heartbeat", to: "heartbeats#create"
end
